"""One evidence process a stream: what turns windows into scores.

Streams with as many bins and the same direction share one bank of arrays and are taken in together, so that ten
thousand cost little more than a hundred. A stream that fails (its pane has other bins than its reference) is told of
by the guard of stage `drift`, keeps its last evidence, and stops no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.guard import guard
from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.counts import are_counts, checked, samples_of
from otel_mlmon.processor.detect.evidence import STATUSES, EvidenceBank
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import Score, Statistics, StatisticValues, ThresholdVerdict
from otel_mlmon.processor.detect.statistics.registry import NEEDS_ORDER, STATISTICS, Statistic
from otel_mlmon.processor.detect.threshold import Threshold
from otel_mlmon.processor.window.window import Reference, StreamKey, Window
from otel_mlmon.types import Floats

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

    def is_about(self, reference: Reference, watch: DetectionPolicy) -> bool:
        """Whether the evidence is against just this."""
        if self.tolerance != watch.tolerance or self.group[1] != watch.direction:
            return False
        if self.reference is not reference:
            if self.names != reference.bins.names or self.counts != tuple(reference.counts.tolist()):
                return False
            self.reference = reference
        return True

    def is_recut(self, reference: Reference, watch: DetectionPolicy) -> bool:
        """Whether this reference is the same values in other bins, and judged the same way."""
        return (
            self.tolerance == watch.tolerance
            and self.group[1] == watch.direction
            and reference.bins.is_ordered
            and self.names != reference.bins.names
            and int(sum(self.counts)) == reference.total
        )


@dataclass(slots=True)
class Batch:
    """One pane of each of several streams of one bank, whose bins are all ordered or all not."""

    group: Group
    is_ordered: bool
    places: list[int] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    watches: list[DetectionPolicy] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Of the bank."""

    def take(self, place: int, window: Window, watch: DetectionPolicy, row: int) -> None:
        """One stream more."""
        self.places.append(place)
        self.windows.append(window)
        self.watches.append(watch)
        self.rows.append(row)


class Evaluator:
    """The evidence of every stream.

    Runs on: one thread at a time.

    Args:
        statistics: What is reported of the rolling window, by name.
    """

    def __init__(self, *, statistics: Mapping[str, Statistic] = STATISTICS) -> None:
        self._statistics = dict(statistics)
        self._watched: dict[StreamKey, Watched] = {}
        self._banks: dict[Group, EvidenceBank] = {}

    def observe_all(self, windows: Iterable[tuple[Window, DetectionPolicy]], *, log10_alarm_line: float) -> list[Score]:
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
        scores: list[Score | None] = [None] * len(every)
        for places in _rounds(every):
            for batch in self._batches(every, places):
                for place, score in zip(batch.places, self._observe(batch, log10_alarm_line), strict=True):
                    scores[place] = score
        return [score or _learning(window, log10_alarm_line) for score, (window, _) in zip(scores, every, strict=True)]

    def observe(self, window: Window, *, tolerance: float, direction: Direction, log10_alarm_line: float) -> Score:
        """Take in one stream's pane."""
        watch = DetectionPolicy(tolerance=tolerance, direction=direction)
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

    def _batches(self, every: Sequence[tuple[Window, DetectionPolicy]], places: list[int]) -> Iterable[Batch]:
        """Who is taken in together; a stream without a reference has no evidence."""
        batches: dict[tuple[Group, bool], Batch] = {}
        for place in places:
            window, watch = every[place]
            reference = window.reference
            if reference is None:
                self.forget(window.stream)
                continue
            with _GUARD:
                watched = self._watched_against(window.stream, reference, watch)
                kind = watched.group, reference.bins.is_ordered
                if kind not in batches:
                    batches[kind] = Batch(*kind)
                batches[kind].take(place, window, watch, watched.row)
        return batches.values()

    def _watched_against(self, stream: StreamKey, reference: Reference, watch: DetectionPolicy) -> Watched:
        """Where the stream's evidence is, begun anew if it was against something else."""
        before = self._watched.get(stream)
        if before is not None and before.is_about(reference, watch):
            return before
        is_recut = before is not None and before.is_recut(reference, watch)
        if not is_recut:
            # First drop: a reference that is refused must not leave the evidence against the one before.
            self.forget(stream)
        group: Group = (reference.counts.size, watch.direction)
        row = self._bank(group).add(reference.counts, watch.tolerance)
        if before is not None and is_recut:
            self._bank(group).go_on(row, self._banks[before.group], before.row)
            self.forget(stream)
        watched = self._watched[stream] = Watched(
            group=group,
            row=row,
            names=reference.bins.names,
            tolerance=watch.tolerance,
            counts=tuple(reference.counts.tolist()),
            reference=reference,
        )
        return watched

    def _bank(self, group: Group) -> EvidenceBank:
        if group not in self._banks:
            self._banks[group] = EvidenceBank(*group)
        return self._banks[group]

    def _observe(self, batch: Batch, log10_alarm_line: float) -> Iterator[Score]:
        """The score of each stream of a batch."""
        bank, rows, bins = self._banks[batch.group], np.array(batch.rows), batch.group[0]
        fitting, panes = _counted("pane", [window.pane for window in batch.windows], bins)
        end_ns = np.array([window.end_ns for window in batch.windows], dtype=np.int64)
        bank.update(rows[fitting], panes, end_ns[fitting], log10_alarm_line * _LN_10)
        columns = zip(
            batch.watches,
            self._reported(batch, bank.reference[rows]),
            bank.status[rows].tolist(),
            bank.log_e[rows].tolist(),
            bank.since_ns[rows].tolist(),
            bank.design_effect[rows].tolist(),
            map(tuple, bank.contributions[rows].tolist()),
            bank.reference_count[rows].tolist(),
            strict=True,
        )
        for watch, (count, statistics), status, log_e, since_ns, effect, contributions, reference_count in columns:
            yield Score(
                status=STATUSES[status],
                log10_evidence=log_e / _LN_10,
                log10_alarm_line=log10_alarm_line,
                design_effect=effect,
                since_ns=since_ns if log_e else 0,
                reference_count=int(reference_count),
                current_count=count,
                statistics=statistics,
                thresholds=_judged(watch.thresholds, statistics, count=count, bins=bins) if watch.thresholds else (),
                contributions=contributions,
            )

    def _reported(self, batch: Batch, references: Floats) -> list[tuple[int, Statistics]]:
        """How many each rolling window holds, and how it compares with its reference."""
        rolling = [window.rolling for window in batch.windows]
        fitting, current = _counted("rolling window", rolling, batch.group[0])
        if fitting.size == len(rolling):
            return list(self._compared(references, current, is_ordered=batch.is_ordered))
        reported = [(int(counts.sum()), Statistics()) for counts in rolling]
        for place, found in zip(
            fitting, self._compared(references[fitting], current, is_ordered=batch.is_ordered), strict=True
        ):
            reported[place] = found
        return reported

    def _compared(
        self, references: Floats, current: NDArray[Any], *, is_ordered: bool
    ) -> Iterable[tuple[int, Statistics]]:
        """How many, and the statistics, row by row."""
        samples = samples_of(references, current)
        found: dict[str, StatisticValues] = {}
        for name, statistic in self._statistics.items():
            if is_ordered or name not in NEEDS_ORDER:
                with _GUARD:
                    found[name] = statistic(samples)
        names = tuple(found)
        rows = zip(
            current.sum(-1).tolist(),
            _by_row([values.value for values in found.values()], len(current)),
            _by_row([values.p_value for values in found.values()], len(current)),
            _by_row([values.noise for values in found.values()], len(current)),
            strict=True,
        )
        for count, values, p_values, noises in rows:
            yield int(count), Statistics(names=names, values=values, p_values=p_values, noises=noises)


def _rounds(windows: Iterable[tuple[Window, DetectionPolicy]]) -> list[list[int]]:
    """The places of `windows` so that no stream is twice in a round, and its panes keep their order."""
    seen: dict[StreamKey, int] = {}
    rounds: list[list[int]] = []
    for place, (window, _) in enumerate(windows):
        turn = seen[window.stream] = seen.get(window.stream, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds


def _counted(what: str, counts: Sequence[NDArray[Any]], bins: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """The places of those that are counts of so many bins, and their rows; the guard is told of the others."""
    fitting = []
    for place, each in enumerate(counts):
        if each.shape == (bins,):
            fitting.append(place)
            continue
        with _GUARD:
            raise BinMismatchError(f"a {what} of shape {each.shape} against {bins} bins")
    places = np.array(fitting, dtype=np.intp)
    if not fitting:
        return places, np.zeros((0, bins))
    rows = np.concatenate([counts[place] for place in fitting]).reshape(-1, bins)
    is_good = are_counts(rows)
    if is_good.all():
        return places, rows
    with _GUARD:
        checked(rows[~is_good], bins)
    return places[is_good], rows[is_good]


def _by_row(columns: Sequence[Floats | None], rows: int) -> Iterable[tuple[Any, ...]]:
    """What the columns say of each row, None where there is no column."""
    there = [repeat(None, rows) if column is None else column.tolist() for column in columns]
    return zip(*there, strict=True) if there else repeat((), rows)


def _judged(
    thresholds: tuple[Threshold, ...], statistics: Statistics, *, count: int, bins: int
) -> tuple[ThresholdVerdict, ...]:
    verdicts = (threshold.judge(statistics, count=count, bins=bins) for threshold in thresholds)
    return tuple(verdict for verdict in verdicts if verdict is not None)


def _learning(window: Window, log10_alarm_line: float) -> Score:
    return Score(
        status="learning",
        log10_evidence=0.0,
        log10_alarm_line=log10_alarm_line,
        reference_count=window.learned if window.reference is None else window.reference.total,
        current_count=int(window.rolling.sum()),
    )
