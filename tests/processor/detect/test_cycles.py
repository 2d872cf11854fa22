"""The cycles of all streams: which streams have one, and that a stored one goes on."""

from __future__ import annotations

import numpy as np

from otel_mlmon.processor.detect.cycle import DAY_NS
from otel_mlmon.processor.detect.evaluator import Evaluator
from otel_mlmon.processor.detect.state import CycleState
from otel_mlmon.processor.state.repository import decode, encode
from otel_mlmon.processor.window.window import Bins, Reference, ReferenceOrigin, StreamKey, Window
from otel_mlmon.types import ModelKey
from tests.support.cycles import LOG10_LINE, MONDAY, PANES, POLICY
from tests.support.evidence import plain

STREAM = StreamKey(ModelKey("m", ""), "prediction.label")


def window(pane: int, *, origin: ReferenceOrigin = "learned") -> Window:
    counts = np.random.default_rng(pane).multinomial(600, [0.6, 0.4])
    start_ns = MONDAY * DAY_NS + pane * DAY_NS // PANES
    reference = Reference(bins=Bins(names=("a", "b"), is_ordered=False), counts=np.array([3_000, 2_000]), origin=origin)
    return Window(
        stream=STREAM, start_ns=start_ns, end_ns=start_ns + DAY_NS // PANES, reference=reference, pane=counts,
        rolling=counts, rolling_start_ns=start_ns,
    )  # fmt: skip


def evaluator() -> Evaluator:
    return Evaluator(policy_for=lambda _: POLICY, alarm_line_for=lambda _: LOG10_LINE, statistics={})


def test_a_stored_cycle_goes_on() -> None:
    first, again = evaluator(), evaluator()
    for pane in range(3 * PANES):
        first.evaluate([window(pane)])
    ((stream, state),) = first.changed_cycles()
    assert first.changed_cycles() == [(stream, state)]  # until it is stored
    assert stream == STREAM
    assert len(state.days) == 2
    first.clear_changed_cycles()
    assert first.changed_cycles() == []
    stored = decode(encode(state), CycleState)
    assert plain(stored.days[0]) == plain(state.days[0])
    again.restore(STREAM, first.state(STREAM))
    again.restore_cycle(STREAM, stored)
    for pane in range(3 * PANES, 4 * PANES):
        ((_, one),), ((_, other),) = first.evaluate([window(pane)]), again.evaluate([window(pane)])
        assert (one.log10_evidence, one.design_effect) == (other.log10_evidence, other.design_effect)


def test_references_that_move_with_time_and_allowances_have_no_cycle() -> None:
    for origin in ("budget", "rolling", "hour_of_week"):
        judged = evaluator()
        for pane in range(PANES // 2):
            judged.evaluate([window(pane, origin=origin)])
        assert judged.changed_cycles() == []


def test_a_stream_that_is_removed_forgets_its_cycle() -> None:
    judged = evaluator()
    for pane in range(12):
        judged.evaluate([window(pane)])
    judged.remove_stream(STREAM)
    assert judged.changed_cycles() == []
