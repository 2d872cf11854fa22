"""The cycles of all streams: which streams have one, and that a stored one goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
import pytest

from otel_mlmon.processor.detect.cycles import compute_utc_offset_ns
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.state import DAY_NS, CycleState
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, ReferenceOrigin, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey
from tests.support.cycles import LOG10_LINE, MONDAY, PANES, POLICY
from tests.support.evidence import plain

STREAM = StreamKey(ModelKey("m", ""), "prediction.label")


def window(pane: int, *, origin: ReferenceOrigin = "learned") -> StreamWindow:
    counts = np.random.default_rng(pane).multinomial(600, [0.6, 0.4])
    start_ns = MONDAY * DAY_NS + pane * DAY_NS // PANES
    return StreamWindow(
        stream=STREAM, start_ns=start_ns, end_ns=start_ns + DAY_NS // PANES, reference=reference_of(origin),
        pane=counts, rolling=counts, rolling_start_ns=start_ns,
    )  # fmt: skip


@cache
def reference_of(origin: ReferenceOrigin) -> ReferenceCounts:
    """Returns the same object for all panes, as the windows of a processor have it: another one fits the week anew."""
    bins = HistogramBins(names=("a", "b"), is_ordered=False)
    return ReferenceCounts(bins=bins, counts=np.array([3_000, 2_000]), origin=origin)


def evaluator() -> DriftEvaluator:
    return DriftEvaluator(policy_for=lambda _: POLICY, alarm_line_for=lambda _: LOG10_LINE, statistics={})


def test_a_stored_cycle_goes_on() -> None:
    first, again = evaluator(), evaluator()
    for pane in range(3 * PANES):
        first.evaluate([window(pane)])
    assert first.cycles.changed() == first.cycles.changed() == [STREAM]  # until it is stored
    state = first.cycles.state(STREAM)
    assert len(state.days) == 2
    first.cycles.clear_changed()
    assert first.cycles.changed() == []
    stored = decode_record(encode_record(state), CycleState)
    assert plain(stored.days[0]) == plain(state.days[0])
    again.restore([STREAM], first.pack([STREAM]))
    again.cycles.restore(STREAM, stored)
    for pane in range(3 * PANES, 4 * PANES):
        ((_, one),), ((_, other),) = first.evaluate([window(pane)]), again.evaluate([window(pane)])
        assert (one.log10_evidence, one.design_effect) == (other.log10_evidence, other.design_effect)


def test_references_that_move_with_time_and_allowances_have_no_cycle() -> None:
    for origin in ("budget", "rolling", "hour_of_week"):
        judged = evaluator()
        for pane in range(PANES // 2):
            judged.evaluate([window(pane, origin=origin)])
        assert judged.cycles.changed() == []


@pytest.mark.parametrize("origin", ["hour_of_week", "rolling"])
def test_the_present_day_of_a_cycle_goes_on_while_another_reference_has_none(origin: ReferenceOrigin) -> None:
    judged = evaluator()
    for pane in range(PANES, 3 * PANES):
        is_away = PANES + PANES // 3 <= pane < PANES + PANES // 2
        judged.evaluate([window(pane, origin=origin if is_away else "learned")])
    (day, *_) = judged.cycles.state(STREAM).days
    counts = np.add.reduce([window(pane).pane for pane in range(PANES, 2 * PANES)])
    assert day.counts.sum(axis=0).tolist() == counts.tolist()


def test_a_stream_that_is_removed_forgets_its_cycle() -> None:
    judged = evaluator()
    for pane in range(12):
        judged.evaluate([window(pane)])
    assert judged.cycles.changed() == [STREAM]
    judged.remove_stream(STREAM)
    assert judged.cycles.changed() == []


def test_days_are_those_of_the_time_zone_also_when_its_clocks_change() -> None:
    hour_ns = 3_600 * 10**9
    winter_ns, summer_ns = (int(datetime(2026, month, 15, tzinfo=UTC).timestamp()) * 10**9 for month in (1, 7))
    assert [compute_utc_offset_ns("Europe/Berlin", time_ns) // hour_ns for time_ns in (winter_ns, summer_ns)] == [1, 2]
    assert compute_utc_offset_ns("Asia/Kolkata", winter_ns) == 11 * hour_ns // 2
    assert compute_utc_offset_ns("America/New_York", summer_ns) == -4 * hour_ns
    assert compute_utc_offset_ns("", winter_ns) == 0


def test_a_stream_with_a_time_zone_counts_its_days_by_it() -> None:
    policy = replace(POLICY, time_zone="Australia/Sydney")
    judged = DriftEvaluator(policy_for=lambda _: policy, alarm_line_for=lambda _: LOG10_LINE, statistics={})
    for pane in range(3 * PANES):
        judged.evaluate([window(pane)])
    state = judged.cycles.state(STREAM)
    # It began at ten or eleven in the morning of the first day, so the first whole day is the next one.
    assert state.time_zone == "Australia/Sydney"
    assert [day.day for day in state.days] == [MONDAY + 1, MONDAY + 2]
    assert state.first_ns == MONDAY * DAY_NS + compute_utc_offset_ns("Australia/Sydney", MONDAY * DAY_NS)


def test_another_time_zone_begins_the_cycle_anew() -> None:
    judged = evaluator()
    for pane in range(3 * PANES):
        judged.evaluate([window(pane)])
    state = judged.cycles.state(STREAM)
    moved = DriftEvaluator(
        policy_for=lambda _: replace(POLICY, time_zone="Asia/Tokyo"),
        alarm_line_for=lambda _: LOG10_LINE, statistics={},
    )  # fmt: skip
    moved.cycles.restore(STREAM, state)
    moved.evaluate([window(3 * PANES)])
    other = moved.cycles.state(STREAM)
    assert (other.time_zone, other.days) == ("Asia/Tokyo", [])
