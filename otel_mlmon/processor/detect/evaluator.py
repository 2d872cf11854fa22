"""Scores the panes of many streams for drift, in the processor and in the backtest alike.

Of each stream it looks up the policy, counts the streams that share the false-alarm budget, takes the pane into the
stream's evidence, and judges the rolling window by the thresholds of its policy, if it has any.

Streams with as many bins and the same direction share one bank of arrays and are taken in together, so that ten
thousand cost little more than a hundred. A stream that fails (its pane has other bins than its reference) is reported
to the guard of stage `drift`, keeps its last evidence, and stops no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Mapping, Sequence
from itertools import chain
from typing import Final

import numpy as np

from otel_mlmon.guard import guard
from otel_mlmon.processor.detect.arrays import STAGE, split_into_rounds, stack_counts, sum_rows
from otel_mlmon.processor.detect.column_checks import check_stream_columns
from otel_mlmon.processor.detect.cycles import StreamCycles, VersionLineage
from otel_mlmon.processor.detect.detectable import MAX_DETECTABLE, DetectableShift
from otel_mlmon.processor.detect.evaluation_plan import EvaluationPlans, PaneBatch
from otel_mlmon.processor.detect.evidence import CALIBRATING, DRIFT, EvidenceBank
from otel_mlmon.processor.detect.measure import (
    BankKey,
    DetectableShifts,
    StreamEntry,
    StreamRow,
    list_contributions,
    measure_calibration,
    measure_windows,
)
from otel_mlmon.processor.detect.policy import DetectionPolicy, judge_thresholds
from otel_mlmon.processor.detect.rare_bins import find_rare_names
from otel_mlmon.processor.detect.score import DriftScore, Statistics, build_learning_score
from otel_mlmon.processor.detect.state import StreamColumns
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.detect.statistics.statistic import Statistic
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import Counts, ModelKey

_GUARD: Final = guard(STAGE)
_LN_10: Final = math.log(10.0)


class DriftEvaluator:
    """Holds the evidence of drift of all streams, and scores their panes.

    Runs on: one thread at a time.

    Args:
        policy_for: Returns how a stream is judged, None if it is not; asked once a stream, until it is forgotten.
        alarm_line_for: Returns log10 of the evidence that is an alarm, from how many streams share the budget.
        statistics: What is measured of the rolling window, by name; every registered one unless given.
        has_cycles: Whether the ends of windows are times, so that streams may have a daily cycle.
        is_offline: Whether no window may be spent on learning the design effect of what is judged.

    Raises:
        ConfigurationError: A statistic of a package cannot be imported.
    """

    def __init__(
        self,
        *,
        policy_for: Callable[[StreamKey], DetectionPolicy | None],
        alarm_line_for: Callable[[int], float],
        statistics: Mapping[str, Statistic] | None = None,
        has_cycles: bool = True,
        is_offline: bool = False,
    ) -> None:
        self.cycles = StreamCycles(self._find_time_zone, has_times=has_cycles)
        """The daily cycles of all streams."""
        self._is_offline = is_offline
        self._policy_for = policy_for
        self._alarm_line_for = alarm_line_for
        self._statistics = STATISTICS.load_all_plugins() if statistics is None else dict(statistics)
        self._policies: dict[StreamKey, DetectionPolicy | None] = {}
        self._entries: dict[StreamKey, StreamEntry] = {}
        self._plans = EvaluationPlans()
        self._lineage = VersionLineage()
        self._detectable = DetectableShifts()
        self._banks: dict[BankKey, EvidenceBank] = {}
        self._log10_alarm_line = 0.0

    def evaluate(
        self, windows: Iterable[StreamWindow], *, log10_alarm_line: float | None = None
    ) -> list[tuple[StreamWindow, DriftScore]]:
        """Scores the panes of many streams; those of one stream come in the order of their time, each once.

        A score depends on the other windows by the alarm line, and on those of the version before. The same reference
        over other bins keeps a stream's evidence; another reference, tolerance or direction starts it anew.

        Args:
            windows: The windows of the panes.
            log10_alarm_line: The line of a pane that is replayed; None for the present one.

        Returns:
            One score for each window of a stream that has a policy, in the order of `windows`.
        """
        panes = list(windows)
        plan = self._plans.find(panes)
        if plan is not None:
            judged, rounds, new = plan.judged, iter([plan.batches]), 0
        else:
            judged = [place for place, pane in enumerate(panes) if self.find_detection_policy(pane.stream) is not None]
            rounds, new = self._plan_rounds(panes, judged), self._count_new_streams(panes[place] for place in judged)
        if log10_alarm_line is None:
            log10_alarm_line = self._alarm_line_for(len(self._entries) + new)
        self._log10_alarm_line = log10_alarm_line
        scores: list[DriftScore | None] = [None] * len(panes)
        for batch in chain.from_iterable(rounds):
            batch_windows = [panes[position] for position in batch.positions]
            batch_scores = self._score_batch(batch, batch_windows, log10_alarm_line)
            for position, score in zip(batch.positions, batch_scores, strict=True):
                scores[position] = score
        results: list[tuple[StreamWindow, DriftScore]] = []
        for position in judged:
            window = panes[position]
            score = scores[position] or build_learning_score(window, log10_alarm_line)
            results.append((window, score if window.absence is None else score.with_absence(window)))
        return results

    def _plan_rounds(self, panes: Sequence[StreamWindow], judged: list[int]) -> Iterator[list[PaneBatch]]:
        """Yields the batches of each round, which are grouped once the round before is scored.

        The plan of a single round is remembered, if the evidence of all streams could begin.
        """
        rounds = split_into_rounds([panes[position].stream for position in judged])
        for positions in rounds:
            batches = self._group_batches(panes, [judged[position] for position in positions])
            count = sum(len(batch.positions) for batch in batches)
            if len(rounds) == 1 and count == sum(panes[position].reference is not None for position in judged):
                self._plans.add(panes, judged, batches)
            yield batches

    def find_detection_policy(self, stream: StreamKey) -> DetectionPolicy | None:
        """Returns how drift of a stream is detected; None if the stream is not judged."""
        try:
            return self._policies[stream]
        except KeyError:
            policy = self._policies[stream] = self._policy_for(stream)
            return policy

    def _find_time_zone(self, stream: StreamKey) -> str:
        policy = self.find_detection_policy(stream)
        return "" if policy is None else policy.time_zone

    def has_evidence_against(self, stream: StreamKey, reference: ReferenceCounts) -> bool:
        """Returns whether a stream's evidence was gathered against this reference, under the present policy."""
        entry, policy = self._entries.get(stream), self.find_detection_policy(stream)
        return entry is not None and policy is not None and entry.is_about_reference(reference, policy)

    def streams(self) -> KeysView[StreamKey]:
        """Returns the streams that have evidence of drift, be it small, and so can be stored."""
        return self._entries.keys()

    def find_bank(self, stream: StreamKey) -> BankKey | None:
        """Returns the number of bins and the direction of a stream's evidence; None if it has none."""
        entry = self._entries.get(stream)
        return None if entry is None else entry.bank

    def pack(self, streams: Sequence[StreamKey]) -> StreamColumns:
        """Returns the evidence of streams as columns for storage; `restore` is the inverse.

        Args:
            streams: One or more, of as many bins and the same direction.

        Raises:
            KeyError: One has no evidence.
        """
        entries = [self._entries[stream] for stream in streams]
        bank, names = entries[0].bank, [entry.bin_names for entry in entries]
        evidence = self._banks[bank].pack([entry.row for entry in entries])
        return StreamColumns(bins=names, direction=bank[1], evidence=evidence)

    def measure(self, windows: Sequence[tuple[ReferenceCounts, Counts]]) -> list[Statistics]:
        """Computes the drift statistics of rolling windows, each a reference and counts of shape (K,).

        One that fails has no statistics.
        """
        return measure_windows(windows, self._statistics)

    def measure_detectable(
        self, models: Collection[ModelKey], *, is_over: bool = False
    ) -> dict[ModelKey, dict[str, DetectableShift]]:
        """Computes how small a drift of each stream with evidence would be found within a day, by model and stream.

        Args:
            models: The model versions whose streams are asked for.
            is_over: Whether no more comes, so that a part of a day stays one.
        """
        log10_alarm_line = self._log10_alarm_line or self._alarm_line_for(len(self._entries))
        holidays: dict[BankKey, list[int]] = {}
        for stream in self.cycles.list_holidays():
            if (entry := self._entries.get(stream)) is not None:
                holidays.setdefault(entry.bank, []).append(entry.row)
        line = log10_alarm_line * _LN_10
        return self._detectable.measure(models, self._banks, self._build_stream_row, holidays, line, is_over=is_over)

    def find_detectable(self, stream: StreamKey) -> DetectableShift | None:
        """Returns the last computed detectable shift of a stream; None if it was never computed."""
        return self._detectable.find(stream)

    def _build_stream_row(self, stream: StreamKey) -> StreamRow | None:
        entry, policy = self._entries[stream], self.find_detection_policy(stream)
        reference, last_ns = entry.reference, int(self._banks[entry.bank].column("last_ns")[entry.row])
        if reference is None:
            return None
        return StreamRow(
            row=entry.row,
            maximum=MAX_DETECTABLE if policy is None else policy.max_detectable,
            day=self.cycles.build_day_hypothesis(stream, reference, last_ns - 1),
            is_budget=reference.origin == "budget",
        )

    def restore(self, streams: Sequence[StreamKey], columns: StreamColumns) -> None:
        """Restores the stored evidence of streams.

        Raises:
            BinMismatchError: The bins of one are others than those of its evidence.
            ValueError: The columns contradict each other; the streams have no evidence then.
        """
        for stream in streams:
            self.remove_stream(stream)
        bank: BankKey = check_stream_columns(columns, len(streams)), columns.direction
        evidence, rows = columns.evidence, self._obtain_bank(bank).restore(columns.evidence)
        places = zip(streams, rows, columns.bins, evidence.tolerance.tolist(), evidence.reference.tolist(), strict=True)
        for stream, row, names, tolerance, counts in places:
            self._lineage.add(stream)
            self._entries[stream] = StreamEntry(
                bank=bank, row=row, bin_names=names, tolerance=tolerance, reference_counts=tuple(counts)
            )
            self._detectable.add(stream, bank, row)

    def remove_stream(self, stream: StreamKey) -> None:
        """Drops the evidence and the policy of a stream, if there are any."""
        self._plans.clear()
        self._policies.pop(stream, None)
        self._drop_evidence(stream)
        self.cycles.remove(stream)

    def _drop_evidence(self, stream: StreamKey) -> None:
        entry = self._entries.pop(stream, None)
        if entry is not None:
            self._plans.clear()
            self.cycles.leave_row(stream)
            self._banks[entry.bank].remove(entry.row)
            self._lineage.remove(stream)
            self._detectable.remove(stream, entry.bank, entry.row)

    def _count_new_streams(self, windows: Iterable[StreamWindow]) -> int:
        """Counts the streams that share the false-alarm budget from now on, as they have a reference and a policy."""
        return len({window.stream for window in windows if window.reference is not None} - self._entries.keys())

    def _group_batches(self, panes: Sequence[StreamWindow], positions: Iterable[int]) -> list[PaneBatch]:
        """Groups the windows that are scored together; a stream without a reference has no evidence."""
        batches: dict[BankKey, PaneBatch] = {}
        for position in positions:
            window = panes[position]
            reference, policy = window.reference, self.find_detection_policy(window.stream)
            if reference is None or policy is None:
                self._drop_evidence(window.stream)
                continue
            entry = self._entries.get(window.stream)
            if entry is None or not entry.is_about_reference(reference, policy):
                previous, entry = entry, None
                with _GUARD:
                    entry = self._start_entry(window, reference, policy, previous)
                if entry is None:
                    continue
            batch = batches.get(entry.bank)
            if batch is None:
                batch = batches[entry.bank] = PaneBatch(entry.bank)
            batch.positions.append(position)
            batch.policies.append(policy)
            batch.rows.append(entry.row)
        return list(batches.values())

    def _start_entry(
        self, window: StreamWindow, reference: ReferenceCounts, policy: DetectionPolicy, previous: StreamEntry | None
    ) -> StreamEntry:
        """Begins the evidence of a stream against another reference or policy than `previous`; returns where it is."""
        stream = window.stream
        is_rebinned = previous is not None and previous.is_rebinned(reference, policy)
        if not is_rebinned:
            # First drop: a reference that is refused must not leave the evidence against the one before.
            self._drop_evidence(stream)
        key: BankKey = (reference.counts.size, policy.direction)
        bank = self._obtain_bank(key)
        row = bank.add(
            reference.counts,
            policy.tolerance,
            always_rare=find_rare_names(reference.bins.names),
            design_effect=reference.design_effect,
            # What the hours of a day do to the shares is not in an hour of values, nor in rows without times.
            is_effect_enough=self._is_offline or not self.cycles.can_have_cycle(reference),
        )
        bank.column("last_ns")[row] = window.start_ns  # the onset of a drift that is there from the beginning
        if previous is not None and is_rebinned:
            bank.copy_evidence(row, self._banks[previous.bank], previous.row)
            self._drop_evidence(stream)
        elif reference.origin != "budget":
            self._inherit_version(stream, bank, row)
        elif policy.first_divisor is not None:
            bank.effects.set_initial_divisor(row, policy.first_divisor)
        self._lineage.add(stream)
        self._plans.clear()
        entry = self._entries[stream] = StreamEntry(
            bank=key,
            row=row,
            bin_names=reference.bins.names,
            tolerance=policy.tolerance,
            reference_counts=tuple(reference.counts.tolist()),
            reference=reference,
        )
        self._detectable.add(stream, key, row)
        return entry

    def _inherit_version(self, stream: StreamKey, bank: EvidenceBank, row: int) -> None:
        """Takes over a stream's design effect and daily cycle from the version before, until new data refute them."""
        before = self._lineage.find_previous_version(stream, self._measure_traffic)
        if before is None:
            return
        entry = self._entries[before]
        effects = self._banks[entry.bank].effects
        if effects.is_calibrated[entry.row]:
            bank.effects.raise_prior(row, float(effects.estimate[entry.row]))
        self.cycles.inherit(stream, before)

    def _measure_traffic(self, stream: StreamKey) -> float:
        entry = self._entries[stream]
        return float(self._banks[entry.bank].traffic.items_per_day(np.array([entry.row]), is_over=True)[0])

    def _obtain_bank(self, key: BankKey) -> EvidenceBank:
        if key not in self._banks:
            self._banks[key] = EvidenceBank(*key)
        return self._banks[key]

    def _score_batch(
        self, batch: PaneBatch, windows: Sequence[StreamWindow], log10_alarm_line: float
    ) -> Iterator[DriftScore]:
        """Adds the panes of a batch to the evidence, and yields the score of each stream."""
        bank, rows, bins = self._banks[batch.bank], np.array(batch.rows), batch.bank[0]
        positions, panes = stack_counts("pane", [window.pane for window in windows], bins)
        judged, places = windows, rows
        if len(positions) < len(windows):
            judged, places = [windows[position] for position in positions.tolist()], rows[positions]
        start_ns = np.array([window.start_ns for window in judged], dtype=np.int64)
        end_ns = np.array([window.end_ns for window in judged], dtype=np.int64)
        self.cycles.advance(judged, bank, places, start_ns)
        bank.update(places, panes, end_ns, log10_alarm_line * _LN_10)
        evidence = bank.log_e[places] / (log10_alarm_line * _LN_10)
        self.cycles.add(judged, bank, places, (start_ns, end_ns), panes, evidence)
        columns = zip(
            batch.policies,
            self._measure_thresholds(batch, windows),
            bank.status[rows].tolist(),
            bank.log_e[rows].tolist(),
            bank.column("since_ns")[rows].tolist(),
            bank.effects.estimate[rows].tolist(),
            list_contributions(bank, rows),
            bank.column("total")[rows].tolist(),
            measure_calibration(bank, rows),
            sum_rows([window.rolling for window in windows]),
            strict=True,
        )
        for policy, statistics, status, log_e, since_ns, effect, contributions, total, calibrated, count in columns:
            yield DriftScore(
                state="drift" if status == DRIFT else "learning" if status == CALIBRATING else "ok",
                is_calibrating=status == CALIBRATING,
                calibrated_ratio=calibrated,
                log10_evidence=log_e / _LN_10,
                log10_alarm_line=log10_alarm_line,
                design_effect=effect,
                since_ns=since_ns if log_e else 0,
                reference_count=int(total),
                current_count=count,
                statistics=statistics,
                thresholds=judge_thresholds(policy.thresholds, statistics, count=count, bins=bins)
                if statistics
                else (),
                contributions=contributions,
            )

    def _measure_thresholds(self, batch: PaneBatch, windows: Sequence[StreamWindow]) -> list[Statistics | None]:
        """Computes the drift statistics of the windows that have thresholds; None for the others."""
        results: list[Statistics | None] = [None] * len(windows)
        positions = [position for position, policy in enumerate(batch.policies) if policy.thresholds]
        judged = [windows[position] for position in positions]
        pairs = [(window.reference, window.rolling) for window in judged if window.reference is not None]
        for position, statistics in zip(positions, self.measure(pairs) if pairs else (), strict=True):
            results[position] = statistics
        return results
