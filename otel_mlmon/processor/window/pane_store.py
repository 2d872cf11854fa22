"""Stores closed panes: one by one at first, later merged to panes of 5 minutes, then of an hour.

Panes merge exactly, so nothing is lost but the time of day within 5 minutes or an hour. What comes late for a pane is
merged into its record, in whatever form that is by then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import (
    RecordKind,
    Repository,
    decode_record,
    encode_record,
    load_records,
    put_records,
    quarantine_record,
)
from otel_mlmon.processor.window.packing import PackedInts, PackedSums, pack_ints, pack_sums, unpack_ints, unpack_sums
from otel_mlmon.processor.window.window import ModelPane, PaneLayout, PaneTable, WindowSettings
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey

COMPACTION_INTERVAL_NS: Final = 300_000_000_000
"""How often panes are merged to longer ones, at most."""

_CACHED_LAYOUTS: Final = 1024

_MINUTE_NS: Final = 60_000_000_000
_DAY_NS: Final = 1440 * _MINUTE_NS


class _StorageTier(NamedTuple):
    """The way in which closed panes of one age are stored: how long they are, and how long they are kept so."""

    kind: RecordKind[PaneRecord]
    length_ns: int
    """Length that panes are merged to; 0 for panes as they closed."""
    kept_ns: int
    """Age at which they go on to the next tier; 0 for the retention."""


class PaneRecord(NamedTuple):
    """A stored pane of a model version, with the counts of all streams packed side by side."""

    model: ModelKey
    start_ns: int
    end_ns: int
    duration: StreamSketch
    failed: int
    layout: bytes
    """The streams and bins that the counts are of, as bytes: mostly those of the pane before, which are read once."""
    number_counts: PackedInts
    sums: PackedSums
    counts: PackedInts
    """All counts, one stream after the other."""

    def unpack(self) -> ModelPane:
        """Returns the pane that the record holds.

        Raises:
            ValueError: The record contradicts itself.
        """
        layout = _decode_layout(self.layout)
        names, _, sizes = layout
        counts, number_counts = unpack_ints(self.counts), unpack_ints(self.number_counts)
        if sum(sizes) != counts.size or min(sizes, default=0) < 0:
            raise ValueError(f"{counts.size} counts for streams of {sum(sizes)}")
        if len({*map(len, layout), number_counts.size, len(set(names))}) > 1:
            raise ValueError("there are not as many counts as streams")
        sums = unpack_sums(self.sums, len(names))
        return ModelPane(
            model=self.model,
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            duration=self.duration,
            failed=self.failed,
            streams=PaneTable(layout=layout, counts=counts, number_counts=number_counts.tolist(), sums=sums),
        )


PANE: Final = RecordKind("pane", PaneRecord, check=PaneRecord.unpack)
PANE_MINUTES: Final = RecordKind("pane5m", PaneRecord, check=PaneRecord.unpack)
PANE_HOURS: Final = RecordKind("pane1h", PaneRecord, check=PaneRecord.unpack)


def put_panes(repository: Repository, panes: Iterable[ModelPane]) -> None:
    """Stores panes that have just closed, each as a record of its own.

    Raises:
        StoreError: The repository refused it.
    """
    put_records(repository, PANE, [(_encode_pane_key(pane), _pack_pane(pane)) for pane in panes])


def merge_panes(repository: Repository, panes: Iterable[ModelPane], kind: RecordKind[PaneRecord] = PANE) -> None:
    """Merges panes into the stored panes of the same time and model, or stores them if there are none.

    Raises:
        StoreError: The repository refused it.
    """
    merged: dict[str, ModelPane] = {}
    for pane in panes:
        key = _encode_pane_key(pane)
        if key not in merged:
            merged |= _load_valid_panes(repository, kind, key, f"{key}\0")
        merged[key] = merged[key].merge(pane) if key in merged else pane
    put_records(repository, kind, [(key, _pack_pane(pane)) for key, pane in merged.items()])


def load_panes(repository: Repository, since_ns: int) -> Iterator[ModelPane]:
    """Loads the stored panes, not merged ones, that end at `since_ns` or later, in the order of time.

    Raises:
        StoreError: The repository cannot be read.
    """
    yield from _load_valid_panes(repository, PANE, f"{max(since_ns, 0):020d}").values()


def compact_panes(
    repository: Repository, windows: WindowSettings, now_ns: int, *, rolling_since_ns: Mapping[ModelKey, int]
) -> None:
    """Merges old stored panes to longer ones, and deletes those older than the retention.

    Args:
        repository: Where they are stored.
        windows: How long they are kept in which form.
        now_ns: The time by our clock, Unix nanoseconds.
        rolling_since_ns: By model, the start of its rolling window, whose panes stay as they are.

    Raises:
        StoreError: The repository refused it.
    """
    tiers = (
        _StorageTier(PANE, 0, windows.stored_ns),
        _StorageTier(PANE_MINUTES, 5 * _MINUTE_NS, max(2 * _DAY_NS, windows.stored_ns)),
        _StorageTier(PANE_HOURS, 60 * _MINUTE_NS, 0),
    )
    for tier, following in pairwise(tiers):
        # Whole periods only, so that no record has to be merged a second time.
        until_ns = (now_ns - tier.kept_ns) // following.length_ns * following.length_ns
        until = f"{max(until_ns, 0):020d}~"
        panes = {
            key: pane
            for key, pane in _load_valid_panes(repository, tier.kind, "", until).items()
            if pane.end_ns <= rolling_since_ns.get(pane.model, pane.end_ns)
        }
        if panes:
            merge_panes(
                repository, (_lengthen_pane(pane, following.length_ns) for pane in panes.values()), following.kind
            )
            repository.delete(tier.kind.name, panes)
    for tier in tiers:
        repository.prune(tier.kind.name, f"{max(now_ns - windows.retention_ns, 0):020d}")


def _lengthen_pane(pane: ModelPane, length_ns: int) -> ModelPane:
    """Returns a pane as a part of the period of `length_ns` that it ends in."""
    end_ns = -(-pane.end_ns // length_ns) * length_ns
    return ModelPane(
        model=pane.model,
        start_ns=min(pane.start_ns, end_ns - length_ns),
        end_ns=end_ns,
        duration=pane.duration,
        failed=pane.failed,
        streams=pane.streams,
    )


def _load_valid_panes(
    repository: Repository, kind: RecordKind[PaneRecord], since: str = "", until: str | None = None
) -> dict[str, ModelPane]:
    """Loads stored panes by key, in the order of time; one that contradicts itself is set aside and reported."""
    panes: dict[str, ModelPane] = {}
    for key, record in load_records(repository, kind, since, until).items():
        try:
            panes[key] = record.unpack()
        except ValueError as error:  # noqa: PERF203 - one by one is the point
            quarantine_record(repository, kind.name, key, encode_record(record), f"ValueError: {error}")
    return panes


def _pack_pane(pane: ModelPane) -> PaneRecord:
    table = pane.streams
    return PaneRecord(
        model=pane.model,
        start_ns=pane.start_ns,
        end_ns=pane.end_ns,
        duration=pane.duration,
        failed=pane.failed,
        layout=_encode_layout(table.layout),
        number_counts=pack_ints(np.array(table.number_counts, dtype=np.int64)),
        sums=pack_sums(table.sums),
        counts=pack_ints(table.counts),
    )


@lru_cache(maxsize=_CACHED_LAYOUTS)
def _encode_layout(layout: PaneLayout) -> bytes:
    return encode_record(layout, is_compressed=True)


@lru_cache(maxsize=_CACHED_LAYOUTS)
def _decode_layout(blob: bytes) -> PaneLayout:
    """Returns a stored layout, one object for all panes that have it.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return decode_record(blob, PaneLayout)
    except StoreError as error:
        raise ValueError(str(error)) from None


def _encode_pane_key(pane: ModelPane) -> str:
    return f"{pane.end_ns:020d} {json.dumps(pane.model)}"
