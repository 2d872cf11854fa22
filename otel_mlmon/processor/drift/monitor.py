"""One evidence process a stream: what turns windows into scores.

A stream that fails (its pane has other bins than its reference) is told of by the guard of stage `drift`,
keeps its last evidence, and stops no other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from otel_mlmon.guard import guard
from otel_mlmon.processor.drift.evidence import Direction, Evidence
from otel_mlmon.processor.drift.score import Score, Statistic, StatisticValue
from otel_mlmon.processor.drift.statistics import NEEDS_ORDER, STATISTICS
from otel_mlmon.processor.window.window import Reference, StreamKey, Window

STAGE: Final = "drift"

_LN_10: Final = math.log(10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One stream's evidence, and the names of the bins it was gathered over."""

    bins: tuple[str, ...]
    evidence: Evidence

    def is_about(self, reference: Reference) -> bool:
        """Whether the evidence is against just this reference."""
        return self.bins == reference.bins.names and np.array_equal(self.evidence.reference_counts, reference.counts)

    def is_recut(self, reference: Reference) -> bool:
        """Whether this reference is the same values in other bins."""
        return (
            reference.bins.is_ordered
            and self.bins != reference.bins.names
            and int(self.evidence.reference_counts.sum()) == reference.total
        )


class DriftMonitor:
    """The evidence of every stream.

    Runs on: one thread at a time.

    Args:
        statistics: What is reported of the rolling window, by name.
    """

    def __init__(self, *, statistics: Mapping[str, Statistic] = STATISTICS) -> None:
        self._statistics = dict(statistics)
        self._watched: dict[StreamKey, Watched] = {}

    def observe(self, window: Window, *, tolerance: float, direction: Direction, log10_alarm_line: float) -> Score:
        """Take in one stream's pane; panes of a stream come in the order of their time, each once.

        The same reference over other bins keeps its evidence; another reference, tolerance or direction starts it
        anew.

        Args:
            window: The pane, beside its rolling window and its reference.
            tolerance: Total variation that is forgiven, [0, 1].
            direction: Which moves are drift.
            log10_alarm_line: log10 of the W that is an alarm.
        """
        reference = window.reference
        if reference is None:
            self.forget(window.stream)
            return _learning(window, log10_alarm_line)
        with guard(STAGE):
            evidence = self._evidence_of(window.stream, reference, tolerance, direction)
            evidence.update(window.pane, window.end_ns, log10_alarm_line * _LN_10)
        watched = self._watched.get(window.stream)
        if watched is None:
            return _learning(window, log10_alarm_line)
        return _score(watched.evidence, window, log10_alarm_line, self._statistics_of(reference, window))

    def streams(self) -> tuple[StreamKey, ...]:
        """Every stream there is evidence of."""
        return tuple(self._watched)

    def state(self, stream: StreamKey) -> dict[str, Any]:
        """The stream's evidence as JSON has it; `restore` is its inverse.

        Raises:
            KeyError: There is none.
        """
        watched = self._watched[stream]
        return {"bins": list(watched.bins), "evidence": watched.evidence.to_state()}

    def restore(self, stream: StreamKey, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave; the next pane goes on from there as if nothing had been in between.

        Raises:
            KeyError: The state is not one of `state`.
        """
        self._watched[stream] = Watched(bins=tuple(state["bins"]), evidence=Evidence.from_state(state["evidence"]))

    def forget(self, stream: StreamKey) -> None:
        """Drop the stream's evidence, if there is any."""
        self._watched.pop(stream, None)

    def _evidence_of(self, stream: StreamKey, reference: Reference, tolerance: float, direction: Direction) -> Evidence:
        watched = self._watched.get(stream)
        known = watched.evidence if watched is not None else None
        is_judged_so = known is not None and (known.tolerance, known.direction) == (tolerance, direction)
        if watched is not None and is_judged_so and watched.is_about(reference):
            return watched.evidence
        # First drop: a reference that is refused must not leave the evidence against the one before.
        self.forget(stream)
        if watched is not None and is_judged_so and watched.is_recut(reference):
            evidence = watched.evidence.over(reference.counts)
        else:
            evidence = Evidence(reference.counts, tolerance=tolerance, direction=direction)
        self._watched[stream] = Watched(bins=reference.bins.names, evidence=evidence)
        return evidence

    def _statistics_of(self, reference: Reference, window: Window) -> dict[str, StatisticValue]:
        values: dict[str, StatisticValue] = {}
        for name, statistic in self._statistics.items():
            if name in NEEDS_ORDER and not reference.bins.is_ordered:
                continue
            with guard(STAGE):
                values[name] = statistic(reference.counts, window.rolling)
        return values


def _learning(window: Window, log10_alarm_line: float) -> Score:
    return Score(
        status="learning",
        log10_evidence=0.0,
        log10_alarm_line=log10_alarm_line,
        reference_count=window.learned if window.reference is None else window.reference.total,
        current_count=int(window.rolling.sum()),
    )


def _score(evidence: Evidence, window: Window, log10_alarm_line: float, statistics: dict[str, StatisticValue]) -> Score:
    return Score(
        status=evidence.status,
        log10_evidence=evidence.log_e / _LN_10,
        log10_alarm_line=log10_alarm_line,
        design_effect=evidence.design_effect,
        since_ns=evidence.since_ns if evidence.log_e else 0,
        reference_count=int(evidence.reference_counts.sum()),
        current_count=int(window.rolling.sum()),
        statistics=statistics,
        contributions=evidence.contributions,
    )
