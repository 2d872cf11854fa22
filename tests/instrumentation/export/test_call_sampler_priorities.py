"""Which calls of a batch failed, were unsure or slow, and so are chosen before others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.export import call_sampler
from otel_mlmon.instrumentation.export.call_sampler import (
    LATENCY_WINDOW,
    MAX_MODELS,
    MIN_LATENCIES,
    SlowCallDetector,
    _EvenSampler,
    prioritize_calls,
)
from otel_mlmon.types import ModelKey
from tests.support.calls import make_predictions

NAN = float("nan")


def marks(*positions: int, of: int) -> np.ndarray:
    """Whether each position is one of these."""
    return np.isin(np.arange(of), positions)


def test_mean_and_lowest_confidence_are_of_each_calls_own_rows() -> None:
    of_rows = prioritize_calls(make_predictions([[0.25, 0.75, 0.5], [], [0.5], [0.125, 0.375]]))
    np.testing.assert_array_equal(of_rows.mean_confidence, [0.5, NAN, 0.5, 0.25])
    np.testing.assert_array_equal(of_rows.min_confidence, [0.25, NAN, 0.5, 0.125])
    single_rows = prioritize_calls(make_predictions([[0.25], [0.75]]))
    np.testing.assert_array_equal(single_rows.mean_confidence, [0.25, 0.75])
    np.testing.assert_array_equal(single_rows.min_confidence, [0.25, 0.75])


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), max_size=4), min_size=1, max_size=8), st.floats(0, 1))
def test_confidences_by_call_are_those_of_a_loop(confidences: list[list[float]], floor: float) -> None:
    actual = prioritize_calls(make_predictions(confidences), confidence_floor=floor)
    for call, rows in enumerate(confidences):
        mean, lowest = (sum(rows) / len(rows), min(rows)) if rows else (NAN, NAN)
        assert actual.mean_confidence[call] == pytest.approx(mean, nan_ok=True)
        assert actual.min_confidence[call] == pytest.approx(lowest, nan_ok=True)
        assert actual.unsure[call] == (bool(rows) and lowest < floor)


def test_a_call_has_priority_that_failed_is_unsure_or_slow() -> None:
    predictions = make_predictions([[0.9], [0.5], [0.49], [0.9]], errors=["ValueError", None, None, None])
    actual = prioritize_calls(predictions, slow=marks(3, of=4), confidence_floor=0.5)
    assert actual.failed.tolist() == [True, False, False, False]
    assert actual.unsure.tolist() == [False, False, True, False]
    assert actual.slow.tolist() == [False, False, False, True]
    assert actual.is_priority.tolist() == [True, False, True, True]
    plain = prioritize_calls(make_predictions([[0.0], [1.0]]))
    assert plain.is_priority.tolist() == [False, False]
    assert {plain.failed.dtype.name, plain.slow.dtype.name} == {"bool"}


def test_a_call_of_several_heads_is_unsure_below_the_floor_of_any_and_not_at_it() -> None:
    one, other = (make_predictions(rows) for rows in ([[0.9], [0.4], [0.9], [0.5]], [[0.9], [0.9], [0.4], [0.5]]))
    both = replace(one, heads={"a": one.heads[""], "b": other.heads[""]})
    actual = prioritize_calls(both, confidence_floor=0.5)
    assert actual.unsure.tolist() == [False, True, True, False]
    assert actual.min_confidence.tolist() == [0.9, 0.4, 0.9, 0.5]


def test_models_drawn_from_last_go_on_evenly_and_the_others_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_sampler, "MAX_POOLS", 3)
    kept = ModelKey("kept", "1")
    alone, crowded = _EvenSampler(1), _EvenSampler(1)
    expected = [alone.choose_ranks(("share", kept), 0.3, 10) for _ in range(20)]
    found = []
    for turn in range(20):
        found.append(crowded.choose_ranks(("share", kept), 0.3, 10))
        for other in range(2):
            crowded.choose_ranks(("share", ModelKey(f"{turn} {other}", "")), 0.5, 10)
    assert found == expected
    assert sum(map(len, found)) == 6
    pools = {("share", kept), *(("share", ModelKey(f"19 {other}", "")) for other in range(2))}
    assert (set(crowded._fractions), set(crowded._starts)) == (pools, pools)


def test_a_call_is_slow_above_the_threshold_and_not_at_it() -> None:
    durations_ns = np.array([1_000_000, 1_000_001, 2_000_000])
    assert SlowCallDetector().detect_slow_calls("m", durations_ns, 0.001).tolist() == [False, True, True]
    assert SlowCallDetector().detect_slow_calls("m", durations_ns, None).tolist() == [False, False, False]
    second_ns = np.array([1_000_000_000, 1_000_000_001])
    assert SlowCallDetector().detect_slow_calls("m", second_ns, 1.0).tolist() == [False, True]


def test_a_call_is_slow_above_the_99th_percentile_of_enough_calls_before() -> None:
    detector = SlowCallDetector()
    ascending = np.arange(1, MIN_LATENCIES, dtype=np.int64)
    detector.detect_slow_calls("m", ascending, None)
    one_more = np.array([MIN_LATENCIES])
    assert detector.detect_slow_calls("m", one_more, None).tolist() == [False]  # 499 calls before are too few
    # Of 1 to 500 the 99th percentile is 495; after it of 501 values 1 … 500 and 495 it is 495 again.
    assert detector.detect_slow_calls("m", np.array([495]), None).tolist() == [False]
    assert detector.detect_slow_calls("m", np.array([496, 495]), None).tolist() == [True, False]
    # A threshold below the percentile decides, one above it does not.
    assert detector.detect_slow_calls("m", np.array([401, 400]), 400e-9).tolist() == [True, False]
    assert detector.detect_slow_calls("m", np.array([499]), 1.0).tolist() == [True]


def test_the_percentile_is_of_the_latest_calls() -> None:
    detector = SlowCallDetector()
    detector.detect_slow_calls("m", np.full(LATENCY_WINDOW, 100), None)
    detector.detect_slow_calls("m", np.full(LATENCY_WINDOW - 1, 1), None)
    # One of the first is left, beyond the percentile of 2,048 values.
    assert detector.detect_slow_calls("m", np.array([2, 1]), None).tolist() == [True, False]
    fresh = SlowCallDetector()
    fresh.detect_slow_calls("m", np.concatenate([np.full(100, 10**9), np.full(LATENCY_WINDOW, 1)]), None)
    assert fresh.detect_slow_calls("m", np.array([2]), None).tolist() == [True]  # of a long batch the last calls count
    # Of exactly the latest 2,048: with 21 of 2,048 above, the percentile is below them, with 22 not.
    for slow_calls, is_slow in ((20, True), (21, True), (22, False)):
        exact = SlowCallDetector()
        exact.detect_slow_calls("m", np.full(slow_calls, 1000), None)
        exact.detect_slow_calls("m", np.full(LATENCY_WINDOW - slow_calls, 1), None)
        assert exact.detect_slow_calls("m", np.array([999]), None).tolist() == [is_slow]
    for later_calls, is_slow in ((LATENCY_WINDOW - 22, False), (LATENCY_WINDOW - 21, True)):
        exact = SlowCallDetector()
        exact.detect_slow_calls("m", np.full(22, 1000), None)
        exact.detect_slow_calls("m", np.full(later_calls, 1), None)
        assert exact.detect_slow_calls("m", np.array([999]), None).tolist() == [is_slow]


def test_the_memory_of_latencies_is_bounded_as_documented() -> None:
    assert (LATENCY_WINDOW * 8 * MAX_MODELS, MIN_LATENCIES) == (16 * 1024 * 1024, 500)


def test_a_call_that_nobody_measured_is_never_slow_and_not_remembered() -> None:
    detector = SlowCallDetector()
    detector.detect_slow_calls("m", np.concatenate([np.zeros(MIN_LATENCIES), np.full(MIN_LATENCIES - 1, 1)]), None)
    assert detector.detect_slow_calls("m", np.array([5]), None).tolist() == [False]  # 499 measured calls are too few
    assert detector.detect_slow_calls("m", np.array([5, 0]), 1e-9).tolist() == [True, False]


def test_models_have_percentiles_of_their_own_and_the_oldest_begins_anew() -> None:
    detector = SlowCallDetector()
    fast = np.full(MIN_LATENCIES, 1)
    for model in range(MAX_MODELS):
        detector.detect_slow_calls(str(model), fast, None)
    two = np.array([2])
    detector.detect_slow_calls("0", two, None)  # a model that is there takes nobody's place
    assert detector.detect_slow_calls("1", two, None).tolist() == [True]
    assert detector.detect_slow_calls("0", two, None).tolist() == [True]
    assert detector.detect_slow_calls("new", two, None).tolist() == [False]
    assert detector.detect_slow_calls("0", two, None).tolist() == [False]
    assert detector.detect_slow_calls("2", two, None).tolist() == [True]
