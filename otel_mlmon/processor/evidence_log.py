"""Scores windows of streams, and stores the evidence of drift: panes with each commit, evidence itself now and then.

Evidence is a function of the panes before, and takes some kilobytes a stream; a pane takes some dozen bytes. So each
commit stores the panes that were scored, as one entry of a log, and the evidence of a slice of streams
(`evidence_slices.py`) is stored with the number of the last entry that it holds: at the latest `STORED_AFTER_NS` after
a pane that it does not hold yet, a part of the slices at a time, and at once where the reference of a stream changed,
since panes are replayed against the present one. A start loads the evidence and replays the panes since, against the
same alarm line: what comes out is the same, bit for bit. No rule judges a pane again: the states of alerts are stored
with the commit.

Runs on: the state thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice, pairwise, takewhile
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from otel_mlmon.guard import guard
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.detect.state import CycleState
from otel_mlmon.processor.evidence_slices import EVIDENCE, SliceRecord, StreamSlice, StreamSlices
from otel_mlmon.processor.state.repository import RecordKind, Repository, load_records, put_records, restore_records
from otel_mlmon.processor.window.packed_numbers import PackedInts, pack_ints, unpack_ints
from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey

STORED_AFTER_NS: Final = 60_000_000_000
"""How long the evidence of a slice may lag behind its panes in the store, at most."""
MIN_AGE_NS: Final = 40_000_000_000
"""How long it lags at least, unless something of it cannot be replayed."""


class ModelPanes(NamedTuple):
    """The panes of all streams of one model version that were scored together."""

    model: ModelKey
    start_ns: int
    end_ns: int
    streams: list[str]
    sizes: list[int]
    """The number of bins of each."""
    counts: PackedInts
    """All counts, one pane after the other."""
    absences: dict[str, StreamAbsence]


class LogEntry(NamedTuple):
    """An entry of the evidence log: the panes that were scored at once, and the streams dropped before."""

    number: int
    log10_alarm_line: float
    dropped: list[StreamKey]
    """Streams that were judged by another reference before, or are gone."""
    models: list[ModelPanes]


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRecord:
    """The stored daily cycle of a stream."""

    stream: StreamKey
    state: CycleState


CYCLE: Final = RecordKind("cycle", CycleRecord, is_compressed=True)
LOG: Final = RecordKind("evidence_log", LogEntry)


FindStream: TypeAlias = Callable[[StreamKey], StreamWindows | None]


class EvidenceLog:
    """Scores the windows of all streams, and stores the evidence of drift so that a restart loses none of it.

    Args:
        evaluator: Scores the windows.
    """

    def __init__(self, evaluator: DriftEvaluator) -> None:
        self.evaluator = evaluator
        self.scores: dict[ModelKey, dict[str, DriftScore]] = {}
        """The last score of each stream, by model version and stream."""
        self.changed: set[ModelKey] = set()
        """Model versions of which streams were scored or dropped since the last commit."""
        self._number = 0
        self._dropped: dict[StreamKey, None] = {}
        """Streams that were dropped since the last entry."""
        self._gone: dict[StreamKey, None] = {}
        """Streams whose stored cycles are to be removed."""
        self._scored: list[tuple[float, list[StreamWindow]]] = []
        """The windows that were scored since the last entry, and log10 of the alarm line they were judged by."""
        self._entries: dict[str, LogEntry] = {}
        """Entries that are not stored yet."""
        self._slices = StreamSlices()
        self._lagging: dict[StreamSlice, tuple[int, int]] = {}
        """The first entry that the stored evidence of a slice does not hold, and when it was made; in that order."""
        self._references: dict[StreamKey, ReferenceCounts] = {}
        """The reference that the stored evidence of a stream is against."""
        self._unstored: dict[StreamSlice, None] = {}
        """Slices of which something cannot be had by replay."""
        self._cycles: dict[StreamKey, None] = {}
        """Streams whose cycle is to be stored with the evidence of their stream."""
        self._stored: list[StreamSlice] = []
        """Slices that the last save wrote."""
        self._chosen_ns = 0
        """When slices were last chosen to be stored."""
        self._pruned = 0
        """Entries before this one are removed."""

    def score_panes(self, windows: Sequence[StreamWindow]) -> list[tuple[StreamWindow, DriftScore]]:
        """Scores windows of streams for drift; those of one stream are in the order of time."""
        scored = self.evaluator.evaluate(windows)
        for model, group in groupby(scored, key=lambda entry: entry[0].stream.model):
            self.changed.add(model)
            self.scores.setdefault(model, {}).update((window.stream.stream, score) for window, score in group)
        for window, _ in scored:
            stream = window.stream
            if window.reference is None or self._references.get(stream) is not window.reference:
                self._place_stream(stream, window.reference)
        if judged := [window for window, _ in scored if window.reference is not None]:
            self._scored.append((scored[0][1].log10_alarm_line, judged))
        return scored

    def drop_stream(self, streams: Iterable[StreamKey]) -> None:
        """Drops the evidence of streams that are judged anew, or that no longer exist."""
        for stream in streams:
            self.evaluator.remove_stream(stream)
            self._remove_score(stream)
            self._references.pop(stream, None)
            self._cycles.pop(stream, None)
            if (left := self._slices.remove(stream)) is not None:
                self._unstored[left] = None
            self._dropped[stream] = self._gone[stream] = None
            self.changed.add(stream.model)

    def find_design_effect(self, stream: StreamKey) -> float:
        """Returns the design effect φ of a stream, 1 where it is unknown."""
        score = self.find_score(stream)
        return 1.0 if score is None else score.design_effect

    def find_score(self, stream: StreamKey) -> DriftScore | None:
        """Returns the last score of a stream; None if it has none."""
        return self.scores.get(stream.model, {}).get(stream.stream)

    def save(self, repository: Repository, *, now_ns: int, is_last: bool = False) -> None:
        """Writes the evidence that changed since the last save, or whose save was rolled back, to the state store.

        Args:
            repository: Where it is stored.
            now_ns: The time by our clock, Unix nanoseconds.
            is_last: Whether all evidence and daily cycles are written, so that the next start has nothing to replay.

        Raises:
            StoreError: The repository refused it.
        """
        self._append_entries(now_ns)
        cycles = self.evaluator.cycles
        self._cycles.update(dict.fromkeys(cycles.list_streams() if is_last else cycles.changed()))
        cycles.clear_changed()
        chosen = dict.fromkeys((*self._unstored, *self._choose_lagging_slices(now_ns, is_last=is_last)))
        if is_last:
            chosen |= dict.fromkeys(part for part in map(self._slices.find, self._cycles) if part is not None)
        slices = list(chosen)
        put_records(repository, LOG, self._entries.items())
        if empty := sorted(part.key for part in slices if not part.streams):
            repository.delete(EVIDENCE.name, empty)
        put_records(repository, EVIDENCE, ((part.key, self._build_record(part)) for part in slices if part.streams))
        if self._gone:
            repository.delete(CYCLE.name, sorted(map(_encode_stream_key, self._gone)))
        states = {stream: cycles.state(stream) for stream in self._list_cycles(slices)}
        put_records(
            repository, CYCLE, [(_encode_stream_key(key), CycleRecord(stream=key, state=states[key])) for key in states]
        )
        self._prune_entries(repository, slices)
        self._stored = slices

    def mark_saved(self) -> None:
        """Notes that what was last saved of the evidence is committed to the state store."""
        for stream in self._list_cycles(self._stored):
            del self._cycles[stream]
        for part in self._stored:
            self._lagging.pop(part, None)
            self._unstored.pop(part, None)
        self._stored = []
        self._entries.clear()
        self._gone.clear()

    def load(self, repository: Repository, find_stream: FindStream, *, now_ns: int) -> None:
        """Loads scores and evidence of all streams from the state store, and replays the panes scored since.

        Args:
            repository: Where they are stored.
            find_stream: Returns the windows of a stream; None if it is not there.
            now_ns: The time by our clock, Unix nanoseconds.

        Raises:
            StoreError: The repository cannot be read.
        """
        numbers: dict[StreamKey, int] = {}

        def restore(record: SliceRecord) -> None:
            numbers.update(dict.fromkeys(self._restore_slice(record), record.entry))
            self._number = max(self._number, record.entry)

        restore_records(repository, EVIDENCE, restore)
        restore_records(repository, CYCLE, lambda cycle: self.evaluator.cycles.restore(cycle.stream, cycle.state))
        for entry in load_records(repository, LOG).values():
            self._number = max(self._number, entry.number)
            with guard("drift"):
                self._replay_entry(entry, numbers, find_stream, now_ns)
        for stream in self.evaluator.streams():
            windows = find_stream(stream)
            reference = windows.reference if windows is not None else None
            if reference is not None and self.evaluator.has_evidence_against(stream, reference):
                self._references[stream] = reference

    def _restore_slice(self, record: SliceRecord) -> list[StreamKey]:
        """Restores the stored evidence and the scores of a slice; returns its streams.

        Raises:
            LookupError, ValueError: The record contradicts itself; nothing of it is restored.
        """
        streams = record.list_streams()
        if record.evidence is not None:
            self.evaluator.restore(streams, record.evidence)
        for stream, score in zip(streams, record.scores, strict=True):
            self._set_score(stream, score)
        if streams:
            self._slices.add_stored(record, self.evaluator.find_bank(streams[0]))
        return streams

    def _replay_entry(
        self, entry: LogEntry, numbers: Mapping[StreamKey, int], find_stream: FindStream, now_ns: int
    ) -> None:
        """Adds the panes of one log entry to the evidence of the streams that do not have them yet."""
        for stream in entry.dropped:
            if numbers.get(stream, 0) < entry.number:
                self.evaluator.remove_stream(stream)
                self._remove_score(stream)
        windows = [
            window
            for panes in entry.models
            for window in _unpack_windows(panes, find_stream)
            if numbers.get(window.stream, 0) < entry.number and self._is_replayable(window)
        ]
        for window, score in self.evaluator.evaluate(windows, log10_alarm_line=entry.log10_alarm_line):
            self._set_score(window.stream, score)
            if (part := self._slices.find(window.stream)) is not None:
                self._lagging.setdefault(part, (entry.number, now_ns))

    def _is_replayable(self, window: StreamWindow) -> bool:
        """Returns whether stored evidence is against the present reference; else the next pane starts it anew."""
        return window.reference is not None and self.evaluator.has_evidence_against(window.stream, window.reference)

    def _append_entries(self, now_ns: int) -> None:
        """Adds entries to the evidence log: the panes scored, and the streams dropped, since the last entry.

        What was scored at once is one entry, since the alarm line may have been another each time.
        """
        scored, self._scored = self._scored, []
        dropped, self._dropped = list(self._dropped), {}
        if dropped and not scored:
            scored = [(0.0, [])]
        for line, windows in scored:
            parts = self._slices.find_all([window.stream for window in windows])
            # A stream that was dropped since is in no slice.
            judged = [window for window, part in zip(windows, parts, strict=True) if part is not None]
            self._number += 1
            for part in dict.fromkeys(parts):
                if part is not None:
                    self._lagging.setdefault(part, (self._number, now_ns))
            groups: dict[tuple[ModelKey, int], list[StreamWindow]] = {}
            for (model, end_ns), run in groupby(judged, lambda window: (window.stream.model, window.end_ns)):
                groups.setdefault((model, end_ns), []).extend(run)
            panes = [_pack_panes(model, windows) for (model, _), windows in groups.items()]
            self._entries[_encode_entry_number(self._number)] = LogEntry(self._number, line, dropped, panes)
            dropped = []

    def _choose_lagging_slices(self, now_ns: int, *, is_last: bool) -> Iterable[StreamSlice]:
        """Chooses the slices that are stored now: those stored longest ago, a part at a time."""
        if is_last:
            return self._lagging

        def list_older(age_ns: int) -> Iterator[StreamSlice]:
            older = takewhile(lambda entry: entry[1][1] <= now_ns - age_ns, self._lagging.items())
            return (part for part, _ in older)

        elapsed_ns, self._chosen_ns = now_ns - self._chosen_ns, now_ns
        count = len(self._lagging) * elapsed_ns // (STORED_AFTER_NS - MIN_AGE_NS)
        return (*list_older(STORED_AFTER_NS), *islice(list_older(MIN_AGE_NS), count))

    def _prune_entries(self, repository: Repository, stored: Iterable[StreamSlice]) -> None:
        """Removes the entries of the evidence log that the stored evidence of all streams includes."""
        current = set(stored)
        lagging = (entry for part, (entry, _) in self._lagging.items() if part not in current)
        first = next(lagging, self._number + 1)
        if first > self._pruned:
            repository.prune(LOG.name, _encode_entry_number(first))
            self._pruned = first

    def _place_stream(self, stream: StreamKey, reference: ReferenceCounts | None) -> None:
        """Notes that the evidence of a stream is against another reference, or that it has none: it is stored now."""
        bank = self.evaluator.find_bank(stream)
        self._unstored.update(dict.fromkeys(self._slices.place(stream, bank)))
        if bank is None or reference is None:
            self._references.pop(stream, None)
        else:
            self._references[stream] = reference

    def _list_cycles(self, slices: Iterable[StreamSlice]) -> list[StreamKey]:
        """Returns the streams whose cycle is stored with these slices."""
        stored = set(slices)
        return [stream for stream in self._cycles if self._slices.find(stream) in stored]

    def _build_record(self, part: StreamSlice) -> SliceRecord:
        streams = list(part.streams)
        scores = self.scores[part.model]
        return SliceRecord(
            number=part.number,
            model=part.model,
            streams=[stream.stream for stream in streams],
            scores=[scores[stream.stream] for stream in streams],
            evidence=None if part.bank is None else self.evaluator.pack(streams),
            entry=self._number,
        )

    def _set_score(self, stream: StreamKey, score: DriftScore) -> None:
        self.scores.setdefault(stream.model, {})[stream.stream] = score

    def _remove_score(self, stream: StreamKey) -> None:
        scores = self.scores.get(stream.model, {})
        if scores.pop(stream.stream, None) is not None and not scores:
            del self.scores[stream.model]


def _pack_panes(model: ModelKey, windows: Sequence[StreamWindow]) -> ModelPanes:
    return ModelPanes(
        model=model,
        start_ns=windows[0].start_ns,
        end_ns=windows[0].end_ns,
        streams=[window.stream.stream for window in windows],
        sizes=[window.pane.size for window in windows],
        counts=pack_ints(np.concatenate([window.pane for window in windows])),
        absences={window.stream.stream: window.absence for window in windows if window.absence is not None},
    )


def _unpack_windows(panes: ModelPanes, find_stream: FindStream) -> Iterator[StreamWindow]:
    """Yields the windows of stored panes, with the present references and rolling windows."""
    counts = unpack_ints(panes.counts)
    for name, (start, end) in zip(panes.streams, pairwise(accumulate(panes.sizes, initial=0)), strict=True):
        key = StreamKey(panes.model, name)
        stream = find_stream(key)
        if stream is None:
            continue
        yield StreamWindow(
            stream=key,
            start_ns=panes.start_ns,
            end_ns=panes.end_ns,
            reference=stream.reference,
            pane=counts[start:end],
            rolling=stream.rolling_counts,
            rolling_start_ns=stream.rolling_start_ns(panes.start_ns),
            absence=panes.absences.get(name),
        )


def _encode_stream_key(stream: StreamKey) -> str:
    return json.dumps(stream)


def _encode_entry_number(number: int) -> str:
    return f"{number:020d}"
