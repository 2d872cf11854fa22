"""A fault of ours while a pane closes costs that pane, and nothing that comes after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from otel_mlmon.processor.window import model_windows, state
from otel_mlmon.processor.window.consumption import ConsumedPoints, consume_points
from otel_mlmon.processor.window.pane_windows import CountedPanes, build_pane_table
from otel_mlmon.processor.window.series import PendingPoints, TimeSeries
from otel_mlmon.processor.window.window import PaneTable
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.types import ModelKey
from tests.support.observations import SECOND, T0, Bench, label

BROKEN, SOUND = ModelKey("broken", "1"), ModelKey("sound", "1")


def fail_for_broken(panes: CountedPanes) -> PaneTable:
    if any(stream.key.model == BROKEN for stream in panes.streams):
        raise ZeroDivisionError
    return build_pane_table(panes)


def fail_halfway(groups: Iterable[PendingPoints], **arguments: Any) -> ConsumedPoints:
    groups = list(groups)
    first = groups[0]
    if first.series[0].state.model == BROKEN:
        consume_points([replace(first, series=first.series[:1], numbers=first.numbers[:1])], **arguments)
        raise ZeroDivisionError
    return consume_points(groups, **arguments)


@pytest.mark.guarded
@pytest.mark.parametrize(
    ("name", "fault", "sound"),
    [("build_pane_table", fail_for_broken, build_pane_table), ("consume_points", fail_halfway, consume_points)],
)
def test_a_fault_costs_a_pane_of_one_model_and_the_state_is_stored(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Any, sound: Any
) -> None:
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 200}}}}) as processor:

        def send(panes: int) -> None:
            for _ in range(panes):
                for model in (BROKEN, SOUND):
                    processor.send_counts(model.name, labels={"a": 70, "b": 30})
                processor.advance(10)

        def count() -> tuple[int, int, int]:
            windows = processor._pipeline._windows
            broken, sound = (windows.summary(key).predictions for key in (BROKEN, SOUND))
            return windows.pending_points, broken, sound

        send(6)
        pending = count()[0]
        monkeypatch.setattr(model_windows, name, fault)
        send(3)
        monkeypatch.setattr(model_windows, name, sound)
        send(4)
        before = count()
        assert before[0] == pending
        assert before[1:] == (1_000, 1_300)
        assert set(processor._pipeline._windows._state.points) == {
            (point.request, series.state.model)
            for series in processor._pipeline._windows._state.series.values()
            for point in series.pending.values()
        }
        processor.restart()
        assert count() == before
        send(1)
        assert count() == (pending, before[1] + 100, 1_400)


@pytest.mark.guarded
def test_a_fault_after_points_are_no_longer_pending_counts_none_of_them_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = list[float]()

    def fail(group: Iterable[TimeSeries]) -> None:
        faults.append(bench.clock.now_ns)
        raise ZeroDivisionError

    bench, pending = Bench(), list[int]()
    for panes, gather in ((6, state._gather_totals), (3, fail), (4, state._gather_totals)):
        monkeypatch.setattr(state, "_gather_totals", gather)
        for _ in range(panes):
            at_s = (bench.clock.now_ns - T0) / SECOND + 10
            bench.add(label(round(at_s), at_s=at_s, since_s=1.0, is_cumulative=True))
            bench.panes.close_panes(bench.clock.now_ns)
        pending += [bench.panes.pending_points, *[len(series.pending) for series in bench.panes._state.series.values()]]
    assert pending == [2] * 6
    assert len(faults) == 3
