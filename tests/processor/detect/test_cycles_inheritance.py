"""A new version begins with the cycle of the version before: who deploys daily is watched too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.cycle import start_daily_cycle
from otel_mlmon.processor.detect.cycles import inherit_days
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.detect.state import DAY_NS, CycleDay, CycleState
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey
from tests.support.cycles import LOG10_LINE, MONDAY, PANES, POLICY, traffic

LENGTH_NS = DAY_NS // PANES
CLASSES = HistogramBins(names=tuple("abcd"), is_ordered=False)


def deploy_daily(*, days: int, shift: float = 0.0, shifted_from: int = 0) -> dict[int, list[DriftScore]]:
    """Traffic with a cycle of ±.10 whose model is deployed anew each noon; the scores by day.

    Each version learns its reference from the hour after noon, so no version is two days old. From the eighth day on a
    score says whether its stream is weak.
    """
    counts = traffic(
        "daily", streams=1, days=days, seed=5, amplitude=0.10, shift=shift, shifted_from=shifted_from
    )[0].reshape(-1, 4)  # fmt: skip
    evaluator = DriftEvaluator(policy_for=lambda _: POLICY, alarm_line_for=lambda _: LOG10_LINE)
    scores: dict[int, list[DriftScore]] = {day: [] for day in range(days)}
    learned, reference, version, first_ns = np.zeros(4, dtype=np.int64), None, 0, 0
    for pane, row in enumerate(counts):
        start_ns = MONDAY * DAY_NS + pane * LENGTH_NS
        # The first version has a week to know the cycle.
        if pane % PANES == PANES // 2 and pane >= 7 * PANES:
            learned, reference, version, first_ns = np.zeros(4, dtype=np.int64), None, version + 1, start_ns + LENGTH_NS
        if reference is None:
            first_ns = first_ns or start_ns + LENGTH_NS
            learned = learned + row
            if learned.sum() >= 5_000:
                reference = ReferenceCounts(bins=CLASSES, counts=learned, origin="learned", first_ns=first_ns)
            continue
        window = StreamWindow(
            stream=StreamKey(ModelKey("shop", str(version)), "prediction.label"), start_ns=start_ns,
            end_ns=start_ns + LENGTH_NS, reference=reference, pane=row, rolling=row, rolling_start_ns=start_ns,
        )  # fmt: skip
        ((_, score),) = evaluator.evaluate([window])
        if pane >= 8 * PANES:
            detectable = evaluator.measure_detectable([window.stream.model]).get(window.stream.model, {})
            score = score.with_detectable(detectable.get(window.stream.stream))
        scores[pane // PANES].append(score)
    return scores


def test_who_deploys_daily_is_watched_and_has_no_false_alarms() -> None:
    scores = deploy_daily(days=12)
    states = [score.state for day in range(8, 12) for score in scores[day]]
    assert "drift" not in states
    assert states.count("ok") > 0.8 * len(states)


def test_who_deploys_daily_is_told_of_a_drift_within_hours() -> None:
    """Fifteen points move in the morning, twelve hours after a version was deployed."""
    scores = deploy_daily(days=10, shift=0.15, shifted_from=9)
    states = [score.state for score in scores[9]]
    assert "drift" not in [score.state for score in scores[8]]
    assert "drift" in states[: PANES // 3]


def cycle_of(counts: NDArray[np.int64], names: tuple[str, ...]) -> CycleState:
    state = start_daily_cycle(MONDAY * DAY_NS, names)
    state.slots, state.days = len(counts), [CycleDay(day=MONDAY, counts=counts.astype(np.int32))]
    return state


def test_classes_are_the_same_by_name_and_a_new_one_is_always_as_frequent() -> None:
    before = cycle_of(np.array([[60, 30, 10], [30, 60, 10]]), ("a", "b", "old"))
    reference = ReferenceCounts(
        bins=HistogramBins(names=("b", "a", "new"), is_ordered=False), counts=np.array([45, 45, 10])
    )
    state = start_daily_cycle(MONDAY * DAY_NS, reference.bins.names)
    inherit_days(state, HistogramBins(names=("a", "b", "old"), is_ordered=False), before, reference)
    assert [day.counts.tolist() for day in state.inherited] == [[[30, 60, 10], [60, 30, 10]]]
    assert state.slots == 2
    assert decode_record(encode_record(state), CycleState).inherited[0].counts.tolist() == [[30, 60, 10], [60, 30, 10]]


@pytest.mark.parametrize(
    ("edges", "expected"),
    [((1.0, 2.0), [10, 20, 70, 5]), ((1.5, 2.0), [20, 10, 70, 5]), ((2.0, 2.5), [30, 35, 35, 5])],
)
def test_ordered_bins_get_what_lies_between_their_edges(edges: tuple[float, ...], expected: list[int]) -> None:
    old = HistogramBins(names=("< 1", "1 … 2", "> 2", "missing"), is_ordered=True, edges=(1.0, 2.0))
    before = cycle_of(np.array([[10, 20, 70, 5]]), old.names)
    bins = HistogramBins(names=("low", "middle", "high", "missing"), is_ordered=True, edges=edges)
    state = start_daily_cycle(MONDAY * DAY_NS, bins.names)
    inherit_days(state, old, before, ReferenceCounts(bins=bins, counts=np.array([30, 30, 40, 5])))
    assert state.inherited[0].counts.tolist() == [expected]


def test_another_kind_of_values_has_nothing_in_common() -> None:
    old = HistogramBins(names=("< 1", "> 1"), is_ordered=True, edges=(1.0,))
    state = start_daily_cycle(MONDAY * DAY_NS, CLASSES.names)
    inherit_days(
        state, old, cycle_of(np.array([[1, 2]]), old.names), ReferenceCounts(bins=CLASSES, counts=np.ones(4, int))
    )
    assert state.inherited == []
