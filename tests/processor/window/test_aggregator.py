"""Panes, references, rolling windows and limits."""

from __future__ import annotations

import math
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.processor.receive.data_point import ModelLoaded
from otel_mlmon.processor.window.aggregator import EXPIRY_INTERVAL_NS, WindowAggregator
from otel_mlmon.processor.window.intake import CLOCK_SLACK_NS
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.state import MAX_EMBEDDED_REFERENCES
from otel_mlmon.processor.window.window import StreamKey, StreamWindow, WindowSettings
from otel_mlmon.reference.embedding import encode_profile
from otel_mlmon.reference.profile import Profile
from otel_mlmon.semconv import MISSING, OTHER
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.sketch.table import PointValue
from otel_mlmon.types import ModelKey
from tests.support.observations import (
    MODEL,
    SECOND,
    T0,
    Bench,
    durations,
    facts,
    label,
    numbers,
    point,
)
from tests.support.plain_sketches import merge_streams, sketch_streams


def windows_of(bench: Bench, stream: str) -> list[StreamWindow]:
    return [window for window in bench.out if window.stream.stream == stream]


def test_a_pane_closes_when_the_watermark_is_past_its_lateness() -> None:
    bench = Bench()
    bench.add(label(3, at_s=10))
    bench.add(label(4, at_s=10.001))
    bench.add(label(1, at_s=29.999))
    assert bench.panes.close_panes(bench.clock.now_ns) == []
    bench.add(label(1, at_s=30))
    (window,) = bench.panes.close_panes(bench.clock.now_ns)
    assert (window.start_ns, window.end_ns, window.learned) == (T0, T0 + 10 * SECOND, 3)
    assert bench.panes.close_panes(bench.clock.now_ns) == []


def test_a_silent_model_closes_by_the_wall_clock() -> None:
    bench = Bench()
    bench.add(label(3, at_s=5))
    assert bench.panes.close_panes(bench.clock.now_ns + 30 * SECOND - 1) == []
    (window,) = bench.panes.close_panes(bench.clock.now_ns + 30 * SECOND)
    assert window.learned == 3


def test_learned_then_frozen_and_rolling() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=40))
    for step in range(1, 13):
        bench.add(label(15, at_s=step * 10, label="a", exemplars=("1" * 32, "0" * 32)))
        bench.add(label(5, at_s=step * 10, label="b"))
    bench.flush()
    windows = windows_of(bench, semconv.STREAM_LABEL)
    assert [window.learned for window in windows] == [20, 40] + [0] * 10
    assert [window.reference is None for window in windows] == [True, True] + [False] * 10
    last = windows[-1]
    assert last.stream == StreamKey(MODEL, "prediction.label")
    assert last.reference is not None
    assert (last.reference.bins.names, last.reference.counts.tolist()) == (("a", "b", OTHER), [30, 10, 0])
    assert (last.reference.origin, last.reference.total) == ("learned", 40)
    assert (last.pane.tolist(), last.rolling.tolist()) == ([15, 5, 0], [90, 30, 0])
    assert last.rolling_start_ns == last.end_ns - 60 * SECOND
    assert last.exemplars == ("0" * 32, "1" * 32)
    assert (windows[2].rolling.tolist(), windows[2].rolling_start_ns) == ([15, 5, 0], windows[2].start_ns)
    assert windows[0].pane.shape == windows[0].rolling.shape == (0,)


def test_latency_and_errors_have_a_budget_and_do_not_learn() -> None:
    bench = Bench(settings=ModelWindowSettings(latency_threshold_s=0.1, latency_max_ratio=0.05, error_max_ratio=0.02))
    bench.add(point(semconv.DURATION.name, durations(0.01, 0.02, 0.3), at_s=10))
    bench.add(point(semconv.DURATION.name, durations(0.5), at_s=10, key="ValueError"))
    bench.flush()
    latency, errors = windows_of(bench, "latency")[0], windows_of(bench, "errors")[0]
    assert latency.reference is not None
    assert errors.reference is not None
    assert (latency.reference.bins.names, latency.reference.counts.tolist()) == (
        ("within", "over"),
        [950_000_000, 50_000_000],
    )
    assert (errors.reference.bins.names, errors.reference.counts.tolist()) == (
        ("ok", "failed"),
        [980_000_000, 20_000_000],
    )
    assert (latency.reference.origin, errors.reference.origin) == ("budget", "budget")
    assert (latency.pane.tolist(), errors.pane.tolist()) == ([2, 2], [3, 1])
    assert latency.rolling_mean == latency.pane_mean == pytest.approx(0.2075)
    assert math.isnan(latency.reference.mean)


def test_a_given_reference_wins() -> None:
    rng = np.random.default_rng(1)
    ages = rng.normal(50.0, 10.0, 5000)
    profile = Profile.from_data(model="digits", labels=["x"] * 9 + ["y"], features={"age": ages})
    bench = Bench(settings=ModelWindowSettings(profile=profile))
    bench.add(label(5, at_s=10, label="y"))
    bench.add(point(semconv.FEATURE.name, numbers(*ages[:100], 1e9), at_s=10, key="age"))
    bench.add(point(semconv.MISSING_VALUES.name, 7, at_s=10, key="age"))
    bench.flush()
    labels, age = windows_of(bench, semconv.STREAM_LABEL)[0], windows_of(bench, "input.age")[0]
    assert labels.reference is not None
    assert age.reference is not None
    assert (labels.reference.counts.tolist(), labels.reference.origin) == ([9, 1, 0], "file")
    assert labels.pane.tolist() == [0, 5, 0]
    assert age.reference.origin == "file"
    assert age.reference.mean == pytest.approx(float(ages.mean()), rel=2e-3)
    assert age.reference.bins.names[-1] == MISSING
    assert (age.pane[-1], age.pane[-2], age.pane.sum()) == (7, 1, 108)
    assert age.reference.total == 5000


def test_coarser_numbers_bin_the_reference_anew_and_the_window_with_it() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=100))
    fine = numbers(*np.linspace(100.0, 200.0, 100))
    for at_s in (10, 20):
        bench.add(point(semconv.FEATURE.name, fine, at_s=at_s, key="age"))
    bench.add(point(semconv.FEATURE.name, numbers(150.0, 1e-200), at_s=30, key="age"))
    bench.add(point(semconv.FEATURE.name, fine, at_s=40, key="age"))
    bench.flush()
    _, before, coarse, after = windows_of(bench, "input.age")
    assert before.reference is not None
    assert coarse.reference is not None
    assert coarse.reference is not before.reference
    assert coarse.reference.total == before.reference.total == 100
    assert coarse.rolling.tolist() == coarse.pane.tolist()
    assert after.reference is coarse.reference
    assert after.rolling.sum() == 102


def test_confidence_has_ten_equal_bins() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=3))
    sketch = durations(0.05, 0.55, 0.999, bounds=semconv.CONFIDENCE_BOUNDS)
    for at_s in (10, 20):
        bench.add(point(semconv.CONFIDENCE.name, sketch, at_s=at_s))
    bench.flush()
    window = windows_of(bench, semconv.STREAM_CONFIDENCE)[-1]
    assert window.reference is not None
    assert window.reference.bins.edges == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert window.pane.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert window.rolling_mean == pytest.approx(0.533)


def test_a_categorical_feature_and_its_missing_values() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=10, max_labels=1))
    for at_s in (10, 20):
        for city, count in (("Rome", 8), ("Bern", 2)):
            bench.add(point(semconv.CATEGORY.name, count, at_s=at_s, key="city", category=city))
        bench.add(point(semconv.MISSING_VALUES.name, 1, at_s=at_s, key="city"))
    bench.flush()
    window = windows_of(bench, "input.city")[-1]
    assert window.reference is not None
    assert window.reference.bins.names == ("Rome", OTHER, MISSING)
    assert window.pane.tolist() == [8, 2, 1]


def test_a_new_version_starts_its_own_reference() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=10))
    for at_s in (10, 20):
        bench.add(label(10, at_s=at_s))
    bench.add(label(10, at_s=20, model=ModelKey("digits", "2")))
    bench.flush()
    assert [(window.stream.model.version, window.reference is None) for window in bench.out] == [
        ("1", True),
        ("1", False),
        ("2", True),
    ]


def test_a_stream_that_went_silent_shrinks_to_nothing_and_then_is_quiet() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=1), windows=WindowSettings(pane_s=10, lateness_s=0, rolling_s=20))
    for step in range(1, 9):
        bench.add(label(2, at_s=step * 10))
        if step <= 2:
            bench.add(point(semconv.FEATURE.name, numbers(1.0), at_s=step * 10, key="age"))
    bench.flush()
    windows = windows_of(bench, "input.age")
    assert [(int(window.pane.sum()), int(window.rolling.sum())) for window in windows] == [(0, 0), (1, 1), (0, 1)]
    assert len(windows_of(bench, semconv.STREAM_LABEL)) == 8


def test_windows_come_in_event_order() -> None:
    bench = Bench()
    for at_s in (30, 10, 20):
        bench.add(label(1, at_s=at_s, model=ModelKey("b", "")))
        bench.add(label(1, at_s=at_s, model=ModelKey("a", "")))
    assert [(window.end_ns - T0, window.stream.model.name) for window in bench.flush()] == [
        (10 * SECOND, "a"),
        (10 * SECOND, "b"),
        (20 * SECOND, "a"),
        (20 * SECOND, "b"),
        (30 * SECOND, "a"),
        (30 * SECOND, "b"),
    ]


def test_what_is_no_use_is_told_apart() -> None:
    bench = Bench()
    assert bench.add(point(semconv.BATCH.name, durations(1.0), at_s=10)) == "unused"
    assert bench.add(point(semconv.SAMPLES.name, 3, at_s=10)) == "unused"
    assert bench.add(point(semconv.PREDICTIONS.name, durations(1.0), at_s=10)) == "mismatch"
    assert bench.add(point(semconv.DURATION.name, 3, at_s=10)) == "mismatch"
    assert bench.flush() == []
    assert bench.panes.models == []


def test_new_series_and_streams_beyond_the_limits_are_dropped_and_old_ones_go_on() -> None:
    bench = Bench(max_series=2)
    assert [bench.add(label(1, at_s=5, label=name)) for name in "abc"] == ["accepted", "accepted", "too_many_series"]
    assert bench.add(label(1, at_s=6)) == "accepted"
    bench = Bench(max_streams=1)
    assert bench.add(point(semconv.DURATION.name, durations(1.0), at_s=5)) == "too_many_streams"
    assert bench.add(label(1, at_s=5)) == "accepted"
    assert bench.add(label(1, at_s=5, label="b")) == "accepted"
    assert bench.panes.stream_count == 1
    bench = Bench(settings=ModelWindowSettings(max_features=2))
    feature = [bench.add(point(semconv.FEATURE.name, numbers(1.0), at_s=5, key=name)) for name in "abc"]
    assert feature == ["accepted", "accepted", "too_many_features"]
    assert bench.add(point(semconv.MISSING_VALUES.name, 1, at_s=5, key="a")) == "accepted"


def test_stale_series_and_silent_models_are_forgotten() -> None:
    bench = Bench(windows=WindowSettings(stale_after_s=7200, retention_s=86_400))
    bench.add(label(5, at_s=10))
    bench.flush()
    assert bench.panes.series_count == 1
    bench.panes.close_panes(bench.clock.now_ns + 7300 * SECOND)
    assert (bench.panes.series_count, bench.panes.models) == (0, [MODEL])
    bench.panes.close_panes(bench.clock.now_ns + 90_000 * SECOND)
    assert bench.panes.models == []
    assert bench.panes.pop_removed_streams() == [StreamKey(MODEL, semconv.STREAM_LABEL)]
    assert bench.panes.pop_removed_streams() == []


def test_a_model_that_was_forgotten_before_its_series_may_come_back() -> None:
    bench = Bench(windows=WindowSettings(stale_after_s=1e6, retention_s=60))
    bench.add(label(5, at_s=10))
    bench.flush()
    bench.panes.close_panes(bench.clock.now_ns + 70 * SECOND)
    assert (bench.panes.models, bench.panes.series_count) == ([], 0)
    assert bench.add(label(5, at_s=5000)) == "accepted"
    bench.flush()
    assert [window.learned for window in bench.out] == [5, 5]


def test_a_total_that_may_have_been_forgotten_is_not_counted_twice() -> None:
    bench = Bench(windows=WindowSettings(stale_after_s=100))
    total: dict[str, Any] = {"since_s": 1.0, "series": "s", "is_cumulative": True}
    bench.add(label(5, at_s=10, **total))
    bench.flush()
    bench.panes.close_panes(bench.clock.now_ns + 200 * SECOND)
    bench.clock.now_ns += 200 * SECOND
    bench.add(label(7, at_s=5000, **total))
    bench.add(label(9, at_s=5010, **total))
    bench.flush()
    assert [window.learned for window in bench.out] == [5, 7]


def test_the_summary() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=10, latency_threshold_s=0.1))
    for at_s in range(10, 130, 10):
        bench.add(point(semconv.DURATION.name, durations(*[0.02] * 96, *[0.3] * 3), at_s=at_s))
        bench.add(point(semconv.DURATION.name, durations(0.3), at_s=at_s, key="E"))
        bench.add(label(100, at_s=at_s))
    bench.flush()
    summary = bench.panes.summary(MODEL)
    assert (summary.calls, summary.calls_per_s, summary.predictions) == (600, 10.0, 1200)
    assert (summary.error_ratio, summary.over_ratio) == (0.01, 0.04)
    assert 0.01 <= summary.p50_s <= 0.025
    assert 0.01 <= summary.p95_s <= 0.025
    assert 0.25 <= summary.p99_s <= 0.3
    assert summary.updated_ns == T0 + 120 * SECOND
    errors, latency, labels = summary.streams
    assert (errors.stream, latency.stream, labels.stream) == ("errors", "latency", "prediction.label")
    assert (labels.learned, labels.learn, labels.origin) == (100, 10, "learned")
    assert (labels.bins.names, labels.reference_shares, labels.current_shares) == (("a", OTHER), (1.0, 0.0), (1.0, 0.0))
    assert (latency.current_shares, latency.origin) == ((0.96, 0.04), "budget")
    with pytest.raises(KeyError):
        bench.panes.summary(ModelKey("none", ""))


def test_a_summary_before_the_first_pane() -> None:
    bench = Bench()
    bench.add(label(1, at_s=5))
    summary = bench.panes.summary(MODEL)
    assert (summary.calls, summary.calls_per_s, summary.updated_ns) == (0, 0.0, 0)
    assert math.isnan(summary.p99_s)
    assert math.isnan(summary.error_ratio)
    assert next(iter(summary.streams)).origin == ""


def test_clock_slack_is_for_writers_a_little_ahead() -> None:
    bench = Bench()
    bench.clock.now_ns = T0
    bench.panes.add(label(1, at_s=CLOCK_SLACK_NS / SECOND))
    assert bench.panes.clamped_points == 0


def profile(created: str = "2026-01-01T00:00:00+00:00", version: str = "", labels: str = "aab") -> Profile:
    created_profile = Profile.from_data(model="digits", version=version, labels=list(labels))
    return replace(created_profile, created=created)


def loaded(reference: Profile | str, model: ModelKey = MODEL) -> ModelLoaded:
    return ModelLoaded(model=model, reference=reference if isinstance(reference, str) else encode_profile(reference))


def test_references_of_models_without_points_are_bounded_and_expire() -> None:
    bench = Bench(windows=WindowSettings(retention_s=86_400))
    bench.add(label(1, at_s=5))
    text = encode_profile(profile())
    models = [ModelKey("m", str(number)) for number in range(MAX_EMBEDDED_REFERENCES + 1)]
    outcomes = [bench.panes.add_reference(loaded(text, model)) for model in models]
    assert outcomes == ["accepted"] * MAX_EMBEDDED_REFERENCES + ["overflow"]
    assert bench.panes.add_reference(loaded(text, models[0])) == "unchanged"
    assert bench.panes.add_reference(loaded(text)) == "accepted"  # a model with points has room
    for after_s, outcome in ((86_400, "overflow"), (86_461, "accepted")):
        bench.clock.now_ns = T0 + 5 * SECOND + after_s * SECOND
        bench.panes.close_panes(bench.clock.now_ns)
        assert bench.panes.add_reference(loaded(text, models[-1])) == outcome


def test_of_two_references_the_later_counts_and_of_equal_times_the_larger_text() -> None:
    texts = sorted(encode_profile(profile(labels=labels)) for labels in ("aab", "abb"))
    later = encode_profile(profile("2026-01-02T00:00:00+00:00"))
    for order, outcomes in (
        (texts, ["accepted", "accepted"]),
        (texts[::-1], ["accepted", "older"]),
        ([later, *texts], ["accepted", "older", "older"]),
    ):
        bench = Bench()
        assert [bench.panes.add_reference(loaded(text)) for text in order] == outcomes


@pytest.mark.parametrize(
    ("of_profile", "of_model", "outcome"),
    [("1", "1", "accepted"), ("2", "1", "refused"), ("", "1", "accepted"), ("1", "", "accepted"), ("", "", "accepted")],
)
def test_a_reference_of_another_version_is_refused_if_both_say_which(
    of_profile: str, of_model: str, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = ModelKey("digits", of_model)
    assert Bench().panes.add_reference(loaded(profile(version=of_profile), key)) == outcome
    assert caplog.messages == (
        ["Model digits 1 carries the reference of version 2: it is refused."] if outcome == "refused" else []
    )


def test_a_reference_that_cannot_be_read_is_refused_and_none_is_none(caplog: pytest.LogCaptureFixture) -> None:
    panes = Bench().panes
    assert [panes.add_reference(loaded(text)) for text in ("", "zlib:no profile")] == ["none", "refused"]
    (message,) = caplog.messages
    assert message.startswith("The reference that model digits 1 carries is refused: ")


def test_a_reference_replaces_learned_ones_and_says_whose() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=1))
    bench.add(label(1, at_s=5))
    bench.add(point(semconv.DURATION.name, durations(0.1), at_s=5))
    bench.flush()
    bench.panes.add_reference(loaded(profile()))
    assert bench.panes.pop_replaced_streams() == [StreamKey(MODEL, "prediction.label")]
    assert bench.panes.pop_replaced_streams() == []


def test_models_are_apart_by_environment() -> None:
    bench = Bench(settings=ModelWindowSettings(learn=10))
    models = [ModelKey("digits", "1", environment) for environment in ("", "production", "staging")]
    for number, model in enumerate(models):
        bench.add(label(1 + number, at_s=5, model=model))
    bench.flush()
    assert [(window.stream.model, window.learned) for window in bench.out] == [
        (model, 1 + number) for number, model in enumerate(models)
    ]


def test_a_point_is_clamped_only_beyond_the_slack_of_clocks() -> None:
    for ahead_ns, clamped in ((CLOCK_SLACK_NS, 0), (CLOCK_SLACK_NS + 1, 1)):
        bench = Bench()
        bench.panes.add(label(1, at_s=1)._replace(time_ns=T0 + ahead_ns))
        assert bench.panes.clamped_points == clamped


def test_the_limits_without_a_configuration() -> None:
    defaults = {name: parameter.default for name, parameter in signature(WindowAggregator).parameters.items()}
    limits = (defaults["max_models"], defaults["max_streams"], defaults["max_series"])
    assert limits == (1_000, 10_000, 200_000)
    assert (CLOCK_SLACK_NS, EXPIRY_INTERVAL_NS, MAX_EMBEDDED_REFERENCES) == (5 * SECOND, 60 * SECOND, 1_000)


def test_every_limit_lets_its_last_one_in() -> None:
    bench = Bench(max_streams=3)
    assert bench.add(label(1, at_s=5)) == "accepted"
    assert bench.add(point(semconv.DURATION.name, durations(1.0), at_s=5)) == "accepted"
    assert bench.add(point(semconv.FEATURE.name, numbers(1.0), at_s=5, key="x")) == "too_many_streams"
    assert bench.panes.counts == {"accepted": 2, "too_many_streams": 1}
    bench = Bench(settings=ModelWindowSettings(max_features=0))
    assert bench.add(label(1, at_s=5)) == "accepted"
    assert bench.add(point(semconv.FEATURE.name, numbers(1.0), at_s=5, key="x")) == "too_many_features"
    assert bench.add(label(1, at_s=5, label="b")) == "accepted"


@pytest.mark.parametrize(("after_s", "series"), [(1200.0, 1), (1200.000000001, 0)])
def test_a_series_is_stale_after_so_long_and_not_before(after_s: float, series: int) -> None:
    bench = Bench(windows=WindowSettings(stale_after_s=1200))
    bench.add(label(5, at_s=10))
    bench.flush()
    bench.panes.close_panes(bench.clock.now_ns + round(after_s * SECOND))
    assert bench.panes.series_count == series


def test_a_stale_series_with_pending_points_stays() -> None:
    bench = Bench(windows=WindowSettings(stale_after_s=10, lateness_s=1000))
    bench.add(label(5, at_s=5))
    bench.panes.close_panes(T0 + 100 * SECOND)
    assert bench.panes.series_count == 1


@pytest.mark.parametrize(("after_ns", "models"), [(0, [MODEL]), (1, [])])
def test_a_model_is_removed_after_the_retention_and_not_before(after_ns: int, models: list[ModelKey]) -> None:
    bench = Bench(windows=WindowSettings(retention_s=86_400))
    bench.add(label(5, at_s=10))
    bench.flush()
    bench.panes.close_panes(T0 + 10 * SECOND + 86_400 * SECOND + after_ns)
    assert bench.panes.models == models


def test_what_is_stale_is_looked_for_once_in_a_minute() -> None:
    bench = Bench(windows=WindowSettings(stale_after_s=1, pane_s=10, lateness_s=0))
    bench.add(label(5, at_s=10))
    bench.panes.close_panes(bench.clock.now_ns)  # looks, and the series is fresh
    counts = []
    for after_ns in (EXPIRY_INTERVAL_NS - 1, EXPIRY_INTERVAL_NS):
        bench.panes.close_panes(T0 + 10 * SECOND + after_ns)
        counts.append(bench.panes.series_count)
    assert counts == [1, 0]


def test_the_trace_ids_of_a_pane_are_the_four_smallest() -> None:
    bench = Bench()
    for digit in "9735184":
        bench.add(label(1, at_s=5, label=digit, exemplars=(digit * 32,)))
    bench.add(label(0, at_s=5, label="none", exemplars=("0" * 32,)))
    (window,) = bench.flush()
    assert window.exemplars == tuple(digit * 32 for digit in "1345")


def test_the_trace_ids_are_of_failed_calls_or_of_slow_ones_alone() -> None:
    bench = Bench()
    for digit, (duration_s, error) in enumerate(((0.1, ""), (0.1, "ValueError"), (0.3, ""), (0.3, "ValueError"))):
        traced = {"exemplars": (f"{digit}" * 32,), "exemplar_value": duration_s, "series": f"{digit}"}
        bench.add(point(semconv.DURATION.name, durations(duration_s), at_s=5, key=error, **traced))  # type: ignore[arg-type]
    windows = {window.stream.stream: window.exemplars for window in bench.flush()}
    assert windows == {"errors": ("1" * 32, "3" * 32), "latency": ("2" * 32, "3" * 32)}


def test_panes_that_nobody_saves_are_dropped_with_their_rolling_window() -> None:
    bench = Bench(windows=WindowSettings(pane_s=10, lateness_s=0, rolling_s=30))
    for step in range(1, 20):
        bench.add(label(1, at_s=10 * step))
        bench.panes.close_panes(T0 + 10_000 * SECOND * step)
    assert [pane.end_ns - T0 for pane in bench.panes._state.changes.panes] == [
        at_s * SECOND for at_s in (170, 180, 190)
    ]


@settings(deadline=None, max_examples=60)
@given(
    writers=st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.001, 100.0)), max_size=10), min_size=1, max_size=5
    ),
    shards=st.integers(1, 4),
)
def test_panes_of_shards_merge_to_that_of_one(writers: list[list[tuple[str, float]]], shards: int) -> None:
    def pane(some: list[list[tuple[str, float]]]) -> dict[str, StreamSketch]:
        parts = []
        for calls in some:
            for name, value in calls:
                parts.append(sketch_streams(semconv.PREDICTIONS.name, name, "", PointValue(counter=1)))
                feature = PointValue.from_sketch(numbers(value, -value))
                parts.append(sketch_streams(semconv.FEATURE.name, name, "", feature))
                duration = PointValue.from_sketch(durations(value))
                parts.append(sketch_streams(semconv.DURATION.name, "", "", duration))
        return merge_streams(parts)

    assert merge_streams(pane(writers[shard::shards]) for shard in range(shards)) == pane(writers)


def test_facts_tell_windows_apart() -> None:
    one, two = Bench(), Bench()
    one.add(label(1, at_s=5))
    two.add(label(2, at_s=5))
    assert facts(one.flush()) != facts(two.flush())
