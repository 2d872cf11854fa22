"""Stores the evidence of drift by slices: streams of one model with as many bins, as one record of columns.

A record a stream would be a hundred small arrays, each encoded by itself; of a slice, each array is encoded once for
all its streams. A slice has `SLICE_STREAMS` streams at most, so that a record stays small (some 4 kB a stream of 13
bins), a commit short, and a damaged record costs no more than that. A stream stays in its slice until it is dropped or
judged by other bins; whichever stream of a slice is to be stored, the slice is.

Runs on: the state thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.measure import BankKey
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.detect.state import StreamColumns
from otel_mlmon.processor.state.repository import RecordKind
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.types import ModelKey

SLICE_STREAMS: Final = 64
"""How many streams are stored in one record, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRecord:
    """The stored detection state of some streams of a model: their last scores, and their evidence if they have any."""

    number: int
    """The number of the slice, which no other has."""
    model: ModelKey
    streams: list[str]
    scores: list[DriftScore]
    evidence: StreamColumns | None
    entry: int
    """The last entry of the evidence log that it holds."""

    def list_streams(self) -> list[StreamKey]:
        """Returns the streams, in the order of the scores and of the evidence.

        Raises:
            ValueError: They are not as many as there are scores, or one is there twice.
        """
        if not len(set(self.streams)) == len(self.streams) == len(self.scores):
            raise ValueError(f"{len(self.scores)} scores of {len(set(self.streams))} streams")
        return [StreamKey(self.model, stream) for stream in self.streams]


def _check_slice(record: SliceRecord) -> None:
    streams = record.list_streams()
    if record.evidence is not None:
        evaluator = DriftEvaluator(policy_for=lambda _: None, alarm_line_for=lambda _: 0.0, statistics={})
        evaluator.restore(streams, record.evidence)


EVIDENCE: Final = RecordKind("evidence", SliceRecord, check=_check_slice)

_Group: TypeAlias = tuple[ModelKey, BankKey | None]
"""Streams that can share a slice."""


@dataclass(slots=True, kw_only=True, eq=False)
class StreamSlice:
    """The streams whose evidence is stored in one record."""

    number: int
    model: ModelKey
    bank: BankKey | None
    """The bins and the direction of their evidence; None for streams without evidence."""
    streams: dict[StreamKey, None] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key of the record."""
        return f"{self.number:010d} {json.dumps(self.model)}"


class StreamSlices:
    """The slices of all streams that have a score."""

    def __init__(self) -> None:
        self._slices: dict[StreamKey, StreamSlice] = {}
        self._open: dict[_Group, dict[StreamSlice, None]] = {}
        """The slices that have room, the oldest first."""
        self._number = 0

    def find(self, stream: StreamKey) -> StreamSlice | None:
        """Returns the slice that a stream is in; None if it is in none."""
        return self._slices.get(stream)

    def place(self, stream: StreamKey, bank: BankKey | None) -> Iterable[StreamSlice]:
        """Puts a stream into a slice of its bins; returns that slice, and first the one that it leaves, if any."""
        present = self._slices.get(stream)
        if present is not None and present.bank == bank:
            return (present,)
        left = self.remove(stream)
        group = stream.model, bank
        with_room = self._open.get(group)
        if with_room:
            joined = next(iter(with_room))
        else:
            joined = StreamSlice(number=self._number + 1, model=stream.model, bank=bank)
        self._add(joined, [stream])
        return (joined,) if left is None else (left, joined)

    def remove(self, stream: StreamKey) -> StreamSlice | None:
        """Takes a stream out of its slice, which is returned; None if it is in none."""
        present = self._slices.pop(stream, None)
        if present is not None:
            del present.streams[stream]
            self._note_room(present)
        return present

    def add_stored(self, record: SliceRecord, bank: BankKey | None) -> StreamSlice:
        """Adds the slice of a stored record, whose streams leave any other; returns it."""
        streams = record.list_streams()
        for stream in streams:
            self.remove(stream)
        stored = StreamSlice(number=record.number, model=record.model, bank=bank)
        self._add(stored, streams)
        return stored

    def _add(self, joined: StreamSlice, streams: Iterable[StreamKey]) -> None:
        self._number = max(self._number, joined.number)
        for stream in streams:
            joined.streams[stream] = None
            self._slices[stream] = joined
        self._note_room(joined)

    def _note_room(self, changed: StreamSlice) -> None:
        """Notes whether a slice takes another stream: one without any is given up."""
        group = changed.model, changed.bank
        if 0 < len(changed.streams) < SLICE_STREAMS:
            self._open.setdefault(group, {})[changed] = None
            return
        with_room = self._open.get(group, {})
        with_room.pop(changed, None)
        if not with_room:
            self._open.pop(group, None)
