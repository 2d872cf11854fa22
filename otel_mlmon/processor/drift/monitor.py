"""One evidence process a stream: what turns windows into scores.

Streams with as many bins and the same direction share one bank of arrays and are taken in together, so that ten
thousand cost little more than a hundred. A stream that fails (its pane has other bins than its reference) is told of
by the guard of stage `drift`, keeps its last evidence, and stops no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.guard import guard
from otel_mlmon.processor.drift.counts import are_counts, checked, samples_of
from otel_mlmon.processor.drift.evidence import STATUSES, EvidenceBank
from otel_mlmon.processor.drift.moves import Direction
from otel_mlmon.processor.drift.score import Score, StatisticValue, StatisticValues
from otel_mlmon.processor.drift.statistics import NEEDS_ORDER, STATISTICS, Statistic
from otel_mlmon.processor.drift.watch import Watch
from otel_mlmon.processor.window.window import Reference, StreamKey, Window

STAGE: Final = "drift"

_GUARD: Final = guard(STAGE)
_LN_10: Final = math.log(10.0)

Group = tuple[int, Direction]
"""Bins and direction: what the streams of one bank have in common."""


@dataclass(slots=True, kw_only=True)
class Watched:
    """Where one stream's evidence is, and what it is against."""

    group: Group
    row: int
    names: tuple[str, ...]
    tolerance: float
    counts: tuple[float, ...]
    reference: Reference | None = None
    """The very object that was last found to be equal: most panes come with the same one."""

    def is_about(self, reference: Reference, watch: Watch) -> bool:
        """Whether the evidence is against just this."""
        if self.tolerance != watch.tolerance or self.group[1] != watch.direction:
            return False
        if self.reference is not reference:
            if self.names != reference.bins.names or self.counts != tuple(reference.counts.tolist()):
                return False
            self.reference = reference
        return True

    def is_recut(self, reference: Reference, watch: Watch) -> bool:
        """Whether this reference is the same values in other bins, and judged the same way."""
        return (
            self.tolerance == watch.tolerance
            and self.group[1] == watch.direction
            and reference.bins.is_ordered
            and self.names != reference.bins.names
            and int(sum(self.counts)) == reference.total
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
        self._banks: dict[Group, EvidenceBank] = {}

    def observe_all(self, windows: Iterable[tuple[Window, Watch]], *, log10_alarm_line: float) -> list[Score]:
        """Take in the panes of many streams; of one stream in the order of their time, each once.

        A score does not depend on what else is taken in with it. The same reference over other bins keeps a stream's
        evidence; another reference, tolerance or direction starts it anew.

        Args:
            windows: Each pane, beside its rolling window and its reference, and how it is judged.
            log10_alarm_line: log10 of the W that is an alarm.

        Returns:
            One score a window, in the order of `windows`.
        """
        every = list(windows)
        scores: dict[int, Score] = {}
        for places in _rounds(every):
            scores.update(self._observe_round(every, places, log10_alarm_line))
        return [scores.get(place) or _learning(window, log10_alarm_line) for place, (window, _) in enumerate(every)]

    def observe(self, window: Window, *, tolerance: float, direction: Direction, log10_alarm_line: float) -> Score:
        """Take in one stream's pane."""
        watch = Watch(tolerance=tolerance, direction=direction)
        return self.observe_all([(window, watch)], log10_alarm_line=log10_alarm_line)[0]

    def streams(self) -> tuple[StreamKey, ...]:
        """Every stream there is evidence of."""
        return tuple(self._watched)

    def state(self, stream: StreamKey) -> dict[str, Any]:
        """The stream's evidence as JSON has it; `restore` is its inverse.

        Raises:
            KeyError: There is none.
        """
        watched = self._watched[stream]
        return {
            "bins": list(watched.names),
            "direction": watched.group[1],
            "evidence": self._banks[watched.group].to_state(watched.row),
        }

    def restore(self, stream: StreamKey, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave; the next pane goes on from there as if nothing had been in between.

        Raises:
            KeyError: The state is not one of `state`.
        """
        evidence = state["evidence"]
        group: Group = (len(evidence["reference"]), state["direction"])
        row = self._bank(group).restore(evidence)
        self.forget(stream)
        self._watched[stream] = Watched(
            group=group,
            row=row,
            names=tuple(state["bins"]),
            tolerance=evidence["tolerance"],
            counts=tuple(evidence["reference"]),
        )

    def forget(self, stream: StreamKey) -> None:
        """Drop the stream's evidence, if there is any."""
        watched = self._watched.pop(stream, None)
        if watched is not None:
            self._banks[watched.group].remove(watched.row)

    def _observe_round(
        self, every: Sequence[tuple[Window, Watch]], places: list[int], log10_alarm_line: float
    ) -> Iterator[tuple[int, Score]]:
        """The scores of one pane of each of several streams."""
        groups: dict[Group, list[int]] = {}
        for place in places:
            window, watch = every[place]
            if window.reference is None:
                self.forget(window.stream)
                continue
            with _GUARD:
                group = self._group_of(window, window.reference, watch)
                groups.setdefault(group, []).append(place)
        statistics = self._statistics_of({place: every[place][0] for group in groups.values() for place in group})
        for group, members in groups.items():
            windows = [every[place][0] for place in members]
            self._update(group, windows, log10_alarm_line * _LN_10)
            scores = self._scores(group, windows, log10_alarm_line, [statistics[place] for place in members])
            for place, score in zip(members, scores, strict=True):
                yield place, _with_thresholds(score, every[place][1], group[0])

    def _group_of(self, window: Window, reference: Reference, watch: Watch) -> Group:
        """Where the stream's evidence is, begun anew if it was against something else."""
        before = self._watched.get(window.stream)
        if before is not None and before.is_about(reference, watch):
            return before.group
        is_recut = before is not None and before.is_recut(reference, watch)
        if not is_recut:
            # First drop: a reference that is refused must not leave the evidence against the one before.
            self.forget(window.stream)
        group: Group = (reference.counts.size, watch.direction)
        row = self._bank(group).add(reference.counts, watch.tolerance)
        if before is not None and is_recut:
            self._bank(group).go_on(row, self._banks[before.group], before.row)
            self.forget(window.stream)
        self._watched[window.stream] = Watched(
            group=group,
            row=row,
            names=reference.bins.names,
            tolerance=watch.tolerance,
            counts=tuple(reference.counts.tolist()),
            reference=reference,
        )
        return group

    def _bank(self, group: Group) -> EvidenceBank:
        if group not in self._banks:
            self._banks[group] = EvidenceBank(*group)
        return self._banks[group]

    def _update(self, group: Group, windows: list[Window], log_alarm_line: float) -> None:
        """Take in the panes that are counts of the group's bins; tell of the others."""
        fitting = []
        for window in windows:
            with _GUARD:
                if window.pane.shape != (group[0],):
                    raise BinMismatchError(f"a pane of shape {window.pane.shape} against {group[0]} bins")
                fitting.append(window)
        if not fitting:
            return
        panes = np.array([window.pane for window in fitting], dtype=np.float64)
        is_good = _told_of(panes, group[0])
        rows = np.array([self._watched[window.stream].row for window in fitting])[is_good]
        end_ns = np.array([window.end_ns for window in fitting], dtype=np.int64)[is_good]
        self._banks[group].update(rows, panes[is_good], end_ns, log_alarm_line)

    def _scores(
        self,
        group: Group,
        windows: list[Window],
        log10_alarm_line: float,
        statistics: list[dict[str, StatisticValue]],
    ) -> Iterator[Score]:
        bank = self._banks[group]
        rows = np.array([self._watched[window.stream].row for window in windows])
        columns = zip(
            windows,
            statistics,
            bank.status[rows].tolist(),
            bank.log_e[rows].tolist(),
            bank.since_ns[rows].tolist(),
            bank.design_effect[rows].tolist(),
            bank.contributions[rows].tolist(),
            bank.reference_count[rows].tolist(),
            strict=True,
        )
        for window, values, status, log_e, since_ns, design_effect, contributions, reference_count in columns:
            yield Score(
                status=STATUSES[status],
                log10_evidence=log_e / _LN_10,
                log10_alarm_line=log10_alarm_line,
                design_effect=design_effect,
                since_ns=since_ns if log_e else 0,
                reference_count=int(reference_count),
                current_count=int(window.rolling.sum()),
                statistics=values,
                contributions=tuple(contributions),
            )

    def _statistics_of(self, windows: Mapping[int, Window]) -> dict[int, dict[str, StatisticValue]]:
        """Each window's rolling counts against its reference, streams of as many bins together."""
        values: dict[int, dict[str, StatisticValue]] = {place: {} for place in windows}
        groups: dict[tuple[int, bool], list[tuple[int, Window, Reference]]] = {}
        for place, window in windows.items():
            reference = window.reference
            with _GUARD:
                if reference is None or reference.counts.shape != window.rolling.shape:
                    raise BinMismatchError(f"a rolling window of shape {window.rolling.shape}")
                groups.setdefault((window.rolling.size, reference.bins.is_ordered), []).append(
                    (place, window, reference)
                )
        for (bins, is_ordered), members in groups.items():
            now = np.array([window.rolling for _, window, _ in members], dtype=np.float64)
            is_good = _told_of(now, bins)
            good = [member for member, is_counts in zip(members, is_good, strict=True) if is_counts]
            before = np.array([reference.counts for _, _, reference in good], dtype=np.float64).reshape(-1, bins)
            columns: dict[str, list[StatisticValue]] = {}
            samples = samples_of(before, now[is_good])
            for name, statistic in self._statistics.items():
                if name not in NEEDS_ORDER or is_ordered:
                    with _GUARD:
                        columns[name] = _each(statistic(samples))
            for (place, _, _), *row in zip(good, *columns.values(), strict=True):
                values[place] = dict(zip(columns, row, strict=True))
        return values


def _rounds(windows: Iterable[tuple[Window, Watch]]) -> list[list[int]]:
    """The places of `windows` so that no stream is twice in a round, and its panes keep their order."""
    seen: dict[StreamKey, int] = {}
    rounds: list[list[int]] = []
    for place, (window, _) in enumerate(windows):
        turn = seen[window.stream] = seen.get(window.stream, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds


def _with_thresholds(score: Score, watch: Watch, bins: int) -> Score:
    if not watch.thresholds:
        return score
    judged = (threshold.judge(score.statistics, count=score.current_count, bins=bins) for threshold in watch.thresholds)
    return replace(score, thresholds=tuple(verdict for verdict in judged if verdict is not None))


def _told_of(rows: NDArray[np.float64], bins: int) -> NDArray[np.bool_]:
    """Which rows are counts; the guard is told of the others."""
    is_good = are_counts(rows)
    if not is_good.all():
        with _GUARD:
            checked(rows[~is_good], bins)
    return is_good


def _each(values: StatisticValues) -> list[StatisticValue]:
    """Row by row."""
    nothing = (None,) * len(values.value)
    p_values = nothing if values.p_value is None else values.p_value.tolist()
    noises = nothing if values.noise is None else values.noise.tolist()
    rows = zip(values.value.tolist(), p_values, noises, strict=True)
    return [StatisticValue(value=value, p_value=p_value, noise=noise) for value, p_value, noise in rows]


def _learning(window: Window, log10_alarm_line: float) -> Score:
    return Score(
        status="learning",
        log10_evidence=0.0,
        log10_alarm_line=log10_alarm_line,
        reference_count=window.learned if window.reference is None else window.reference.total,
        current_count=int(window.rolling.sum()),
    )
