from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.alert.alert import RuleState
from otel_mlmon.processor.alert.records import RuleStatus
from otel_mlmon.processor.alert.version_change import VersionChange
from otel_mlmon.processor.detect.score import DriftScore, Statistics
from otel_mlmon.processor.serve.documents import Document, build_overview
from otel_mlmon.processor.serve.publication import ModelView, PublishedState
from otel_mlmon.processor.window.summary import ModelSummary, StreamSummaries
from otel_mlmon.types import ModelKey
from tests.support.alerts import FIRING
from tests.support.observations import MODEL, T0, Bench, durations, label, point


def publish(
    bench: Bench,
    summaries: Iterable[ModelSummary],
    scores: Mapping[ModelKey, Mapping[str, DriftScore]] | None = None,
    rules: Iterable[RuleStatus] = (),
    changes: Mapping[ModelKey, VersionChange] | None = None,
    max_gauge_streams: int = 100,
) -> PublishedState:
    """What is shown of these summaries."""
    publication = PublishedState(lambda windows: [Statistics()] * len(windows), max_gauge_streams=max_gauge_streams)
    statuses: dict[ModelKey, list[RuleStatus]] = {}
    for status in rules:
        statuses.setdefault(status.model, []).append(status)
    views: dict[ModelKey, ModelView | None] = {
        summary.model: ModelView(
            summary=summary,
            scores=(scores or {}).get(summary.model, {}),
            reference=bench.panes.reference(summary.model),
        )
        for summary in summaries
    }
    publication.publish_models(views, rules=statuses, alerts=[], changes=changes or {})
    return publication


def overview_of(bench: Bench, changes: Mapping[ModelKey, VersionChange] | None = None) -> Document:
    """The overview of the one model of a bench."""
    return publish(bench, [bench.panes.summary(MODEL)], changes=changes).overview()


def test_a_model_is_described_by_what_it_did_and_what_was_said_of_it() -> None:
    bench = Bench()
    bench.add(label(60, at_s=10, label="a"))
    bench.add(label(40, at_s=10, label="b"))
    bench.add(point("ml.inference.duration", durations(*[0.001] * 99, 0.5), at_s=10))
    bench.flush()
    score = DriftScore(
        state="drift",
        log10_evidence=9.0,
        log10_alarm_line=7.0,
        statistics=Statistics.from_rows({"psi": (0.3, None, None)}),
        contributions=(0.5, -0.5),
    )
    summary = bench.panes.summary(MODEL)
    counts = [stream.reference.counts if stream.reference is not None else [100] for stream in summary.streams]
    streams = tuple(replace(stream, current=np.array(row)) for stream, row in zip(summary.streams, counts, strict=True))
    scores = {MODEL: {"prediction.label": score}}
    document = publish(bench, [replace(summary, streams=StreamSummaries(streams))], scores).overview()
    model = document["models"]["digits"]
    keys = ("name", "environment", "version", "versions", "state", "predictions", "error_ratio")
    assert {key: model[key] for key in keys} == {
        "name": "digits", "environment": "", "version": "1", "versions": [{"version": "1", "change": None}],
        "state": "drift", "predictions": 100, "error_ratio": 0.0,
    }  # fmt: skip
    assert model["latency"]["over_ratio"] == pytest.approx(0.01)
    assert model["latency"]["p50_s"] == pytest.approx(0.001, rel=0.6)
    named = {stream["stream"]: stream for stream in model["streams"]}
    assert sorted(named) == ["errors", "latency", "prediction.label"]
    assert named["prediction.label"]["state"] == "drift"
    assert named["prediction.label"]["statistics"] == {"psi": {"value": 0.3, "p_value": None, "noise": None}}
    assert named["latency"]["state"] == "learning"


@given(
    st.lists(st.builds(ModelKey, st.text("a@%/", max_size=4), st.just(""), st.text("a@%/ ", max_size=4)), max_size=8)
)
def test_no_two_models_have_the_same_id(models: list[ModelKey]) -> None:
    assert len({model.id for model in models}) == len(set(models))


@pytest.mark.parametrize(
    ("name", "environment", "text"),
    [
        ("fraud", "", "fraud"),
        ("fraud", "staging", "fraud@staging"),
        ("a/b", "eu west/1", "a/b@eu%20west%2F1"),
        ("me@home", "", "me@home@"),
    ],
)
def test_an_id_names_the_model_and_its_environment(name: str, environment: str, text: str) -> None:
    assert ModelKey(name, "1", environment).id == text


def test_environments_of_a_model_are_apart_in_documents_and_gauges() -> None:
    bench = Bench()
    models = [
        ModelKey("digits", "1", "staging"),
        ModelKey("digits", "1", "production"),
        ModelKey("digits", "2", "staging"),
    ]
    for model, count in zip(models, (50, 70, 90), strict=True):
        bench.add(label(count, at_s=10, model=model))
    bench.flush()
    rules = [
        RuleStatus(model=model, rule="latency", state=RuleState.FIRING, changed_ns=T0, severity="critical", causes=())
        for model in models[:2]
    ]
    score = DriftScore(state="learning", is_calibrating=True, log10_evidence=1.0, log10_alarm_line=7.0)
    summaries = [bench.panes.summary(model) for model in models]
    publication = publish(bench, summaries, {models[1]: {"prediction.label": score}}, rules)
    document = publication.overview()
    assert {
        key: (model["name"], model["environment"], versions_of(model), model["predictions"], model["rules"])
        for key, model in document["models"].items()
    } == {
        "digits@staging": ("digits", "staging", ["1", "2"], 90, []),
        "digits@production": (
            "digits", "production", ["1"], 70, [{"rule": "latency", "state": "firing", "changed_ns": T0}],
        ),
    }  # fmt: skip
    staging = {"ml.model.name": "digits", "ml.model.version": "2", "deployment.environment.name": "staging"}
    production = {"ml.model.name": "digits", "ml.model.version": "1", "deployment.environment.name": "production"}
    stream = {"ml.drift.stream": "prediction.label"}
    assert [
        (value.metric.name, value.value, value.attributes)
        for value in publication.gauges()
        if value.attributes.get("ml.drift.stream") != "errors"
    ] == [
        ("ml.drift.window.size", 0, {**staging, **stream}),
        ("ml.drift.state", 2, {**staging, **stream}),
        ("ml.drift.window.size", 0, {**production, **stream}),
        ("ml.drift.state", 2, {**production, **stream}),
        ("ml.drift.evidence", -6.0, {**production, **stream}),
        ("ml.alert.state", 2, {**staging, "ml.model.version": "1", "ml.alert.rule": "latency"}),
        ("ml.alert.state", 2, {**production, "ml.alert.rule": "latency"}),
    ]


def test_the_documents_have_just_the_keys_that_are_documented() -> None:
    bench = Bench()
    bench.add(label(60, at_s=10, label="a"))
    bench.flush()
    (model,) = overview_of(bench)["models"].values()
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    (document,) = build_overview({}, [FIRING], {})["alerts"]
    assert keys_of(page, "A model's document") == set(model)
    change = VersionChange(model=MODEL, before="0", time_ns=T0, predictions=1000, compared=3, causes=())
    (versioned,) = overview_of(bench, {MODEL: change})["models"].values()
    (version,) = versioned["versions"]
    assert keys_of(page, "A new version") == set(version["change"])
    assert keys_of(page, "A stream") == set(model["streams"][0])
    assert keys_of(page, "An alert") == {*document, "subject"}


def versions_of(model: dict[str, Any]) -> list[str]:
    return [entry["version"] for entry in model["versions"]]


def keys_of(page: str, heading: str) -> set[str]:
    """The keys in the first column of the table under a heading."""
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}
