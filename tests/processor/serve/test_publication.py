"""Gauges are bounded by the streams that came first, and documents are made once for each change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.processor.detect.score import DriftScore, Statistics
from otel_mlmon.processor.serve.publication import ModelView, PublishedState
from otel_mlmon.processor.window.summary import StreamSummaries
from otel_mlmon.processor.window.window import ReferenceCounts
from otel_mlmon.types import Counts, ModelKey
from tests.support.observations import MODEL, Bench, point

OTHER = ModelKey("other", "1")


def view(bench: Bench, model: ModelKey, *streams: str) -> ModelView:
    """A model with these streams; each a value of the model's one stream."""
    summary = bench.panes.summary(model)
    (template,) = summary.streams
    listed = tuple(replace(template, stream=f"input.{name}") for name in sorted(streams))
    score = DriftScore(state="ok", log10_evidence=0.0, log10_alarm_line=7.0, statistics=None)
    return ModelView(
        summary=replace(summary, streams=StreamSummaries(listed)),
        scores={stream.stream: score for stream in listed},
        reference=bench.panes.reference(model),
    )


def learned() -> Bench:
    bench = Bench()
    for model in (MODEL, OTHER):
        for at_s in (10, 20):
            bench.add(point(semconv.MISSING_VALUES.name, 100, at_s=at_s, key="x", model=model))
    bench.flush()
    return bench


def publish(publication: PublishedState, *views: ModelView, removed: Sequence[ModelKey] = ()) -> list[str]:
    """Publishes, and returns the streams that have gauges."""
    changed: dict[ModelKey, ModelView | None] = {entry.summary.model: entry for entry in views}
    publication.publish_models({**changed, **dict.fromkeys(removed)}, rules={}, alerts=[], changes={})
    gauges = [gauge for gauge in publication.gauges() if gauge.metric == semconv.DRIFT_STATE]
    return sorted(f"{gauge.attributes['ml.model.name']} {gauge.attributes['ml.drift.stream']}" for gauge in gauges)


def test_the_streams_that_came_first_have_gauges_for_as_long_as_they_are_there() -> None:
    bench = learned()
    publication = PublishedState(lambda windows: [Statistics()] * len(windows), max_gauge_streams=3)
    first = ["digits input.b", "digits input.c"]
    assert publish(publication, view(bench, MODEL, "b", "c")) == first
    assert publish(publication, view(bench, OTHER, "a", "z")) == [*first, "other input.a"]
    assert publication.omitted_streams == 1
    # One that sorts first comes too late, whatever is published again.
    assert publish(publication, view(bench, MODEL, "a", "b", "c")) == [*first, "other input.a"]
    assert publish(publication, view(bench, OTHER, "a", "z")) == [*first, "other input.a"]
    assert publication.omitted_streams == 2
    # A place that is given up goes to whoever is published next.
    assert publish(publication, view(bench, MODEL, "a", "c")) == ["digits input.a", "digits input.c", "other input.a"]
    assert publish(publication, removed=[MODEL]) == ["other input.a"]
    assert publish(publication, view(bench, OTHER, "a", "y", "z")) == [f"other input.{name}" for name in "ayz"]
    assert publication.omitted_streams == 0
    assert set(publication.overview()["models"]) == {"other"}


def test_windows_are_measured_and_documents_made_when_they_are_asked_for_and_once() -> None:
    bench, measured = learned(), list[int]()

    def measure(windows: Sequence[tuple[ReferenceCounts, Counts]]) -> list[Statistics]:
        measured.append(len(windows))
        return [Statistics.from_rows({"psi": (0.5, None, None)})] * len(windows)

    publication = PublishedState(measure)
    entry = view(bench, MODEL, "b", "c")
    entry.summary = replace(
        entry.summary,
        streams=StreamSummaries(
            tuple(
                replace(stream, current=np.zeros_like(stream.reference.counts) + 7)
                for stream in entry.summary.streams
                if stream.reference is not None
            )
        ),
    )
    publication.publish_models({MODEL: entry}, rules={}, alerts=[], changes={})
    assert measured == []
    document = publication.overview()
    assert publication.overview() is document
    assert measured == [2]
    statistics = [stream["statistics"] for stream in document["models"]["digits"]["streams"]]
    assert statistics == [{"psi": {"value": 0.5, "p_value": None, "noise": None}}] * 2
    other = view(bench, OTHER, "a")
    publication.publish_models({OTHER: other}, rules={}, alerts=[], changes={})
    assert publication.overview()["versions"]["digits"]["1"] is document["versions"]["digits"]["1"]
