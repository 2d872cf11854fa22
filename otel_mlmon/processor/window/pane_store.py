"""Stores closed panes: one by one at first, then in blocks; later merged to panes of 5 minutes, then of an hour.

Panes merge exactly, so nothing is lost but the time of day within 5 minutes or an hour. What comes late for a pane is
merged into its record where that is one of its own, and else stored beside its block, until the next compaction merges
the two.

A block holds the panes of one model version in one period in one compressed record: panes one by one would take pages
of the database each, and the bytes that are the same in all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import (
    CONTRADICTIONS,
    RecordKind,
    Repository,
    decode_record,
    encode_record,
    load_records,
    put_records,
    quarantine_record,
)
from otel_mlmon.processor.window.packed_numbers import (
    PackedInts,
    PackedSums,
    ScaledSums,
    pack_ints,
    pack_sums,
    view_ints,
    view_sums,
)
from otel_mlmon.processor.window.pane_stack import PaneStack, join_stacks, split_stacks
from otel_mlmon.processor.window.window import ModelPane, PaneLayout, WindowSettings
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey

COMPACTION_INTERVAL_NS: Final = 300_000_000_000
"""How often panes are put into blocks, and merged to longer ones, at most."""

_CACHED_LAYOUTS: Final = 1024

_MINUTE_NS: Final = 60_000_000_000
_DAY_NS: Final = 1440 * _MINUTE_NS
_SETTLE_NS: Final = _MINUTE_NS
"""How long after a period its panes are put into a block: by then most of them are closed."""


class PaneBlock(NamedTuple):
    """The stored panes of one model version in one period, or a single one, with all counts packed side by side."""

    model: ModelKey
    times_ns: list[tuple[int, int]]
    """Start and end of each pane, in the order of their ends."""
    durations: list[StreamSketch]
    failed: list[int]
    layouts: list[bytes]
    """The different streams and bins that the counts are of, as bytes: mostly those of the block before, which are read
    once."""
    layout_numbers: list[int]
    """For each pane, which of them."""
    number_counts: PackedInts
    sums: PackedSums
    counts: PackedInts
    """All counts, one pane after the other, and in it one stream after the other."""

    def unpack(self) -> list[PaneStack]:
        """Returns the panes that the record holds, those of the same streams and bins together.

        Raises:
            ValueError: The record contradicts itself.
        """
        layouts = [_decode_layout(layout) for layout in self.layouts]
        if not all(0 <= number < len(layouts) for number in self.layout_numbers):
            raise ValueError("a pane has streams that are not there")
        columns = (self.times_ns, self.durations, self.failed, self.layout_numbers)
        if not self.layout_numbers or {len(column) for column in columns} != {len(self.layout_numbers)}:
            raise ValueError("there are not as many of each part as panes")
        widths = [sum(layouts[number].sizes) for number in self.layout_numbers]
        stream_counts = [len(layouts[number].names) for number in self.layout_numbers]
        counts, number_counts = view_ints(self.counts), view_ints(self.number_counts)
        if sum(widths) != counts.size or sum(stream_counts) != number_counts.size:
            raise ValueError(f"{counts.size} counts of {number_counts.size} streams, where the streams tell of others")
        sums, shift = view_sums(self.sums, number_counts.size)
        count_ends, stream_ends = [*accumulate(widths)], [*accumulate(stream_counts)]
        groups: dict[int, list[int]] = {}
        for pane, number in enumerate(self.layout_numbers):
            groups.setdefault(number, []).append(pane)
        return [
            PaneStack(
                model=self.model,
                times_ns=[self.times_ns[pane] for pane in panes],
                durations=[self.durations[pane] for pane in panes],
                failed=[self.failed[pane] for pane in panes],
                layout=layouts[number],
                counts=_stack_rows(counts, count_ends, panes),
                number_counts=_stack_rows(number_counts, stream_ends, panes),
                sums=ScaledSums(_stack_rows(sums, stream_ends, panes), shift),
            )
            for number, panes in groups.items()
        ]


def _stack_rows(values: NDArray[Any], ends: list[int], rows: list[int]) -> NDArray[Any]:
    """Returns some rows of one length, of rows that are one after the other in an array, as a table.

    Args:
        values: All rows.
        ends: Where each of them ends.
        rows: Which of them.
    """
    size = ends[rows[0]] - (ends[rows[0] - 1] if rows[0] else 0)
    if len(rows) == len(ends):
        return values.reshape(len(rows), size, *values.shape[1:])
    return np.stack([values[ends[row] - size : ends[row]] for row in rows])


PANE: Final = RecordKind("pane", PaneBlock, check=PaneBlock.unpack)
PANE_MINUTES: Final = RecordKind("pane5m", PaneBlock, check=PaneBlock.unpack)
PANE_HOURS: Final = RecordKind("pane1h", PaneBlock, check=PaneBlock.unpack)
BLOCK: Final = RecordKind("panes", PaneBlock, is_compressed=True, check=PaneBlock.unpack)
BLOCK_MINUTES: Final = RecordKind("panes5m", PaneBlock, is_compressed=True, check=PaneBlock.unpack)
BLOCK_HOURS: Final = RecordKind("panes1h", PaneBlock, is_compressed=True, check=PaneBlock.unpack)


class _StorageTier(NamedTuple):
    """The way in which closed panes of one age are stored: how long they are, and how long they are kept so."""

    kind: RecordKind[PaneBlock]
    """The records of single panes, until the period of a block is over."""
    block_kind: RecordKind[PaneBlock]
    length_ns: int
    """Length that panes are merged to; 0 for panes as they closed."""
    period_ns: int
    """Length of the period of a block, by the end of its panes."""
    kept_ns: int
    """Age at which they go on to the next tier; 0 for the retention."""


def put_panes(repository: Repository, panes: Iterable[ModelPane]) -> None:
    """Stores panes that have just closed, each as a record of its own.

    Raises:
        StoreError: The repository refused it.
    """
    put_records(repository, PANE, [(_encode_pane_key(pane), _pack_panes([pane])) for pane in panes])


def merge_panes(repository: Repository, panes: Iterable[ModelPane], kind: RecordKind[PaneBlock] = PANE) -> None:
    """Merges panes into the records of the same time and model, or stores them as records if there are none.

    Raises:
        StoreError: The repository refused it.
    """
    merged: dict[str, ModelPane] = {}
    for pane in panes:
        key = _encode_pane_key(pane)
        if key not in merged:
            _merge_into(merged, _load_panes(repository, kind, key, f"{key}\0"))
        _merge_into(merged, [pane])
    put_records(repository, kind, [(key, _pack_panes([pane])) for key, pane in merged.items()])


def load_panes(repository: Repository, since_ns: int) -> Iterator[PaneStack]:
    """Loads the stored panes, not merged ones, that end at `since_ns` or later.

    Those of blocks come first, in the order of time; what came late for one of them is a pane of its own. Panes that
    are records of their own come together where they are of the same streams and bins.

    Raises:
        StoreError: The repository cannot be read.
    """

    def is_recent(_: int, end_ns: int) -> bool:
        return end_ns >= since_ns

    for _, stacks in _load_stacks(repository, BLOCK, _encode_time(since_ns)):
        recent = (stack.select_panes(is_recent) for stack in stacks)
        yield from (stack for stack in recent if stack.times_ns)
    singles: dict[tuple[ModelKey, int, int, int], list[PaneStack]] = {}
    for _, stacks in _load_stacks(repository, PANE, _encode_time(since_ns)):
        for stack in stacks:
            # The layout is one object with that of all panes of the same streams and bins.
            alike = stack.model, id(stack.layout), stack.sums.shift, stack.sums.numbers.shape[-1]
            singles.setdefault(alike, []).append(stack)
    yield from map(join_stacks, singles.values())


def compact_panes(
    repository: Repository, windows: WindowSettings, now_ns: int, *, rolling_since_ns: Mapping[ModelKey, int]
) -> None:
    """Merges old stored panes to longer ones, puts those of whole periods into blocks, and deletes the oldest.

    Args:
        repository: Where they are stored.
        windows: How long they are kept in which form.
        now_ns: The time by our clock, Unix nanoseconds.
        rolling_since_ns: By model, the start of its rolling window, whose panes stay as long as they are.

    Raises:
        StoreError: The repository refused it.
    """
    tiers = (
        _StorageTier(PANE, BLOCK, 0, 5 * _MINUTE_NS, windows.stored_ns),
        _StorageTier(PANE_MINUTES, BLOCK_MINUTES, 5 * _MINUTE_NS, 60 * _MINUTE_NS, max(2 * _DAY_NS, windows.stored_ns)),
        _StorageTier(PANE_HOURS, BLOCK_HOURS, 60 * _MINUTE_NS, _DAY_NS, 0),
    )
    oldest_ns = max(now_ns - windows.retention_ns, 0)

    def is_rolled_out(pane: ModelPane) -> bool:
        return pane.end_ns <= rolling_since_ns.get(pane.model, pane.end_ns)

    for tier, following in pairwise(tiers):
        # Whole periods only, so that no record has to be merged a second time.
        until_ns = (now_ns - tier.kept_ns) // following.length_ns * following.length_ns
        panes = chain.from_iterable(
            _take_panes(repository, kind, until_ns, is_rolled_out) for kind in (tier.block_kind, tier.kind)
        )
        merge_panes(repository, (_lengthen_pane(pane, following.length_ns) for pane in panes), following.kind)
    for tier in tiers:
        for kind in (tier.block_kind, tier.kind):
            repository.prune(kind.name, _encode_time(oldest_ns))
        for _ in _take_panes(
            repository, tier.block_kind, oldest_ns + tier.period_ns, lambda pane: pane.end_ns < oldest_ns
        ):
            pass
        _build_blocks(repository, tier, (now_ns - _SETTLE_NS) // tier.period_ns * tier.period_ns)


def _build_blocks(repository: Repository, tier: _StorageTier, until_ns: int) -> None:
    """Puts the panes of single records that end at `until_ns` or before into the blocks of their periods."""

    def find_period_end(item: tuple[str, list[ModelPane]]) -> int:
        return _round_up(item[1][-1].end_ns, tier.period_ns)

    records = _load_blocks(repository, tier.kind, until=_encode_limit(until_ns))
    for end_ns, group in groupby(records, find_period_end):  # a period at a time, since panes take memory
        by_model: dict[ModelKey, dict[str, ModelPane]] = {}
        keys = []
        for key, panes in group:
            keys.append(key)
            model = panes[0].model
            if model not in by_model:
                block_key = _encode_key(end_ns, model)
                by_model[model] = {}
                _merge_into(by_model[model], _load_panes(repository, tier.block_kind, block_key, f"{block_key}\0"))
            _merge_into(by_model[model], panes)
        put_records(
            repository,
            tier.block_kind,
            [
                (_encode_key(end_ns, model), _pack_panes([panes[key] for key in sorted(panes)]))
                for model, panes in by_model.items()
            ],
        )
        repository.delete(tier.kind.name, keys)


def _take_panes(
    repository: Repository, kind: RecordKind[PaneBlock], until_ns: int, is_taken: Callable[[ModelPane], bool]
) -> Iterator[ModelPane]:
    """Removes the panes that `is_taken` chooses from the records of up to `until_ns`, and yields them."""
    for key, panes in _load_blocks(repository, kind, until=_encode_limit(until_ns)):
        rest = [pane for pane in panes if not is_taken(pane)]
        if len(rest) == len(panes):
            continue
        if rest:
            put_records(repository, kind, [(key, _pack_panes(rest))])
        else:
            repository.delete(kind.name, [key])
        yield from filter(is_taken, panes)


def _merge_into(panes: dict[str, ModelPane], added: Iterable[ModelPane]) -> None:
    """Adds panes to others by key, and merges those of the same time and model."""
    for pane in added:
        key = _encode_pane_key(pane)
        panes[key] = panes[key].merge(pane) if key in panes else pane


def _lengthen_pane(pane: ModelPane, length_ns: int) -> ModelPane:
    """Returns a pane as a part of the period of `length_ns` that it ends in."""
    end_ns = _round_up(pane.end_ns, length_ns)
    return ModelPane(
        model=pane.model,
        start_ns=min(pane.start_ns, end_ns - length_ns),
        end_ns=end_ns,
        duration=pane.duration,
        failed=pane.failed,
        streams=pane.streams,
    )


def _load_panes(
    repository: Repository, kind: RecordKind[PaneBlock], since: str = "", until: str | None = None
) -> Iterator[ModelPane]:
    return chain.from_iterable(panes for _, panes in _load_blocks(repository, kind, since, until))


def _load_blocks(
    repository: Repository, kind: RecordKind[PaneBlock], since: str = "", until: str | None = None
) -> Iterator[tuple[str, list[ModelPane]]]:
    """Yields the panes of stored records with their key, in the order of keys, and sets damaged records aside."""
    for key, stacks in _load_stacks(repository, kind, since, until):
        yield key, split_stacks(stacks)


def _load_stacks(
    repository: Repository, kind: RecordKind[PaneBlock], since: str = "", until: str | None = None
) -> Iterator[tuple[str, list[PaneStack]]]:
    for key, block in load_records(repository, kind, since, until).items():
        stacks: list[PaneStack] = []
        try:
            stacks = block.unpack()
        except CONTRADICTIONS as error:
            blob = encode_record(block, is_compressed=kind.is_compressed)
            quarantine_record(repository, kind.name, key, blob, f"{type(error).__name__}: {error}")
        if stacks:
            yield key, stacks


def _pack_panes(panes: list[ModelPane]) -> PaneBlock:
    """Packs panes of one model, one or more, in the order of their time."""
    tables = [pane.streams for pane in panes]
    layouts: dict[PaneLayout, int] = {}
    numbers = [layouts.setdefault(table.layout, len(layouts)) for table in tables]
    return PaneBlock(
        model=panes[0].model,
        times_ns=[(pane.start_ns, pane.end_ns) for pane in panes],
        durations=[pane.duration for pane in panes],
        failed=[pane.failed for pane in panes],
        layouts=[_encode_layout(layout) for layout in layouts],
        layout_numbers=numbers,
        number_counts=pack_ints(np.concatenate([np.array(table.number_counts, dtype=np.int64) for table in tables])),
        sums=pack_sums([units for table in tables for units in table.sums]),
        counts=pack_ints(np.concatenate([table.counts for table in tables])),
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
        layout = decode_record(blob, PaneLayout)
    except StoreError as error:
        raise ValueError(str(error)) from None
    if len({*map(len, layout)}) > 1 or len(set(layout.names)) < len(layout.names):
        raise ValueError("the streams of a pane contradict each other")
    if min(layout.sizes, default=0) < 0:
        raise ValueError("a stream has less than no bins")
    return layout


def _encode_pane_key(pane: ModelPane) -> str:
    return _encode_key(pane.end_ns, pane.model)


def _encode_key(end_ns: int, model: ModelKey) -> str:
    return f"{_encode_time(end_ns)} {json.dumps(model)}"


def _round_up(time_ns: int, step_ns: int) -> int:
    return -(-time_ns // step_ns) * step_ns


def _encode_limit(time_ns: int) -> str:
    """Returns what is after the keys of all records of up to a time."""
    return f"{_encode_time(time_ns)}~"


def _encode_time(time_ns: int) -> str:
    return f"{max(time_ns, 0):020d}"
