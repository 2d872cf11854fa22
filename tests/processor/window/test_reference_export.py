from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.processor.receive.data_point import DataPoint
from otel_mlmon.processor.window.reference import ModelWindowSettings, MovingReferenceSettings
from otel_mlmon.processor.window.window import ReferenceCounts, StreamWindow, WindowSettings
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.histogram import Histogram
from tests.support.observations import MODEL, Bench, durations, label, numbers, point

VALUES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30)
NOW = datetime(2026, 2, 3, tzinfo=timezone.utc)


def document(bench: Bench) -> dict[str, Any] | None:
    """The reference of the model after its way through JSON."""
    exported = bench.panes.reference(MODEL).document(lambda: NOW)
    read: dict[str, Any] | None = json.loads(json.dumps(exported, allow_nan=False))
    return read


def feature(values: list[float], *, at_s: float) -> DataPoint:
    hidden = numbers(*values).hide_values()  # as applications send them
    return point(semconv.FEATURE.name, hidden, at_s=at_s, since_s=at_s - 10, key="age")


def facts(reference: ReferenceCounts | None) -> tuple[object, ...]:
    assert reference is not None
    return reference.bins, reference.counts.tolist()


def last(windows: list[StreamWindow], stream: str) -> StreamWindow:
    return [window for window in windows if window.stream.stream == stream][-1]


@settings(deadline=None)
@given(first=VALUES, later=st.lists(VALUES, min_size=1, max_size=3))
def test_another_processor_has_the_same_bins_and_counts(first: list[float], later: list[list[float]]) -> None:
    bench = Bench(settings=ModelWindowSettings(learn=1))
    for number, values in enumerate((first, *later)):
        bench.add(feature(values, at_s=10.0 + 8000 * number))
        bench.flush()  # a later pane of coarser buckets moves the edges
    other = Bench(settings=ModelWindowSettings(learn=1, profile=Profile.from_dict(document(bench))))
    for processor in (bench, other):
        processor.add(feature([1.0], at_s=100_000.0))
        processor.flush()
    mine, other_counts = last(bench.out, "input.age"), last(other.out, "input.age")
    assert facts(mine.reference) == facts(other_counts.reference)
    assert mine.pane.tolist() == other_counts.pane.tolist()


def test_every_kind_of_stream_goes_out_but_the_budgets() -> None:
    bench = Bench()
    histogram = Histogram.from_values(np.linspace(0.5, 1.0, 100), semconv.CONFIDENCE_BOUNDS)
    bench.add(label(60, at_s=10, label="a"))
    bench.add(label(40, at_s=10, label="b"))
    bench.add(point(semconv.CONFIDENCE.name, histogram, at_s=10))
    bench.add(point(semconv.VALUE.name, numbers(*range(100)), at_s=10))
    bench.add(point(semconv.MISSING_VALUES.name, 100, at_s=10, key="age"))
    bench.add(point(semconv.DURATION.name, durations(*[0.001] * 100), at_s=10))
    bench.flush()
    profile = Profile.from_dict(document(bench))
    assert (profile.model, profile.version, profile.created) == ("digits", "1", "2026-02-03T00:00:00Z")
    assert {name: sketch.total for name, sketch in profile.streams.items()} == {
        "prediction.label": 100, "prediction.confidence": 100, "prediction.value": 100, "input.age": 100,
    }  # fmt: skip
    assert profile.streams["prediction.label"].categories.counts == {"a": 60, "b": 40}


def test_what_still_learns_is_named_and_left_out() -> None:
    bench = Bench()
    bench.add(label(100, at_s=10))
    bench.add(feature([1.0, 2.0], at_s=10))
    bench.flush()
    reference = bench.panes.reference(MODEL)
    assert (dict(reference.learning), reference.moving) == ({"input.age": (2, 100)}, ())
    assert list((document(bench) or {})["streams"]) == ["prediction.label"]


def test_of_nothing_there_is_no_document() -> None:
    bench = Bench()
    bench.add(point(semconv.DURATION.name, durations(0.001), at_s=10))
    bench.flush()
    assert (dict(bench.panes.reference(MODEL).learning), document(bench)) == ({}, None)


def test_what_was_given_goes_out_as_it_came_and_what_was_learned_beside_it() -> None:
    operator = Profile.from_data(
        model=MODEL.name,
        version=MODEL.version,
        labels=["a"] * 50,
        features={"never_seen": np.arange(50.0)},
        calibration=Calibration.from_predictions(np.full(50, 0.9), np.full(50, fill_value=True)),
        now=lambda: datetime(2025, 1, 1, tzinfo=timezone.utc),
    )
    carried = Profile.from_data(model=MODEL.name, labels=["b"] * 70, now=lambda: NOW)
    bench = Bench(settings=ModelWindowSettings(learn=2, profile=operator, embedded_profile=carried))
    bench.add(label(100, at_s=10))
    bench.flush()
    assert document(bench) == operator.to_dict()
    bench.add(feature([1.0, 2.0], at_s=20_000))
    bench.flush()
    mixed = Profile.from_dict(document(bench))
    assert mixed.streams["prediction.label"] == operator.streams["prediction.label"]
    assert sorted(mixed.streams) == ["input.age", "input.never_seen", "prediction.label"]
    assert (mixed.created, mixed.calibration) == ("2026-02-03T00:00:00Z", operator.calibration)


@pytest.mark.parametrize("hours", [0.5, 1, 4])
def test_a_reference_that_moves_or_will_is_named(hours: float) -> None:
    history = MovingReferenceSettings(rolling_hours=2, lag_hours=1)
    bench = Bench(settings=ModelWindowSettings(learn=300, moving=history), windows=WindowSettings(lateness_s=0.0))
    for number in range(round(hours * 2)):
        bench.add(label(200, at_s=1800.0 * number + 10, since_s=1800.0 * number))
        bench.add(point(semconv.DURATION.name, durations(0.001), at_s=1800.0 * number + 10))
        bench.panes.close_panes(bench.clock.now_ns)
    # While it learns, while the learned one goes on until hours that are old enough were seen, and then.
    assert bench.panes.reference(MODEL).moving == ("prediction.label",)


def test_what_moved_while_it_was_learned_is_said_and_stays_said() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=1000))
    for number in range(40):
        at_s = 10.0 * (number + 1)
        for name, count in (("a", 90), ("b", 10)) if number < 5 else (("b", 90), ("c", 10 + number)):
            bench.add(label(count, at_s=at_s, since_s=at_s - 10, label=name))
        bench.add(feature([float(value) for value in range(100)], at_s=at_s))
        bench.flush()
    profile = Profile.from_dict(document(bench))
    assert (sorted(profile.streams), profile.unstationary) == (["input.age", "prediction.label"], ("prediction.label",))
    # Of two that were given, that of the operator counts for what both have.
    calm = Profile.from_data(model=MODEL.name, labels=["a"] * 50, now=lambda: NOW)
    for first, second, expected in ((profile, calm, ("prediction.label",)), (calm, profile, ())):
        other = Bench(settings=ModelWindowSettings(learn=5, profile=first, embedded_profile=second))
        other.add(label(10, at_s=10))
        other.flush()
        assert Profile.from_dict(document(other)).unstationary == expected
    alone = Bench(settings=ModelWindowSettings(profile=profile))
    alone.add(label(10, at_s=10))
    alone.flush()
    assert document(alone) == profile.to_dict()
