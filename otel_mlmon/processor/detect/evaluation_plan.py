"""Remembers which streams are scored together: pane after pane has the same streams, against the same references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Final, NamedTuple

from otel_mlmon.processor.detect.measure import BankKey
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey, StreamWindow

MAX_PLANS: Final = 64
"""Plans that are remembered; of more, the one that was made first is dropped."""


@dataclass(slots=True)
class PaneBatch:
    """One pane of each of several streams whose evidence is in the same bank, to be scored together."""

    bank: BankKey
    positions: list[int] = field(default_factory=list)
    """Positions of the windows in the call of `evaluate`."""
    policies: list[DetectionPolicy] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Rows of the bank."""


class EvaluationPlan(NamedTuple):
    """The batches in which windows are scored, as long as no stream's evidence begins, ends or moves."""

    streams: list[StreamKey]
    references: list[ReferenceCounts | None]
    judged: list[int]
    """Positions of the windows that have a score."""
    batches: list[PaneBatch]


class EvaluationPlans:
    """The plans of the last calls, by their first stream and their number of windows; all are void on any change."""

    def __init__(self) -> None:
        self._plans: dict[tuple[StreamKey, int], EvaluationPlan] = {}

    def clear(self) -> None:
        """Drops all plans, as the evidence of a stream begins, ends or moves."""
        self._plans.clear()

    def add(self, windows: Sequence[StreamWindow], judged: list[int], batches: list[PaneBatch]) -> None:
        """Remembers the batches of windows that are all of different streams."""
        if not windows:
            return
        if len(self._plans) >= MAX_PLANS:
            del self._plans[next(iter(self._plans))]
        streams = [window.stream for window in windows]
        references = [window.reference for window in windows]
        self._plans[streams[0], len(streams)] = EvaluationPlan(streams, references, judged, batches)

    def find(self, windows: Sequence[StreamWindow]) -> EvaluationPlan | None:
        """Returns the plan for windows of the same streams, with the very same references; None without one."""
        plan = self._plans.get((windows[0].stream, len(windows))) if windows else None
        if plan is None or plan.streams != [window.stream for window in windows]:
            return None
        return plan if all(map(is_, plan.references, [window.reference for window in windows])) else None
