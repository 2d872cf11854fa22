"""Migrates stored records from one format to the next, since the format that the first release writes.

A change that old records cannot be read with raises `FORMAT_VERSION` and adds a function here that rewrites the records
of the version before. All of them run in one transaction with the new version number, after a copy of the database was
made beside it. A field with a default that is added to a record needs no migration: it is read as its default.

`tests/support/state` holds a store of the first format; `tests/tools/freeze_state.py` makes one of the present format,
and `tests/processor/state/test_migrations.py` loads all of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from itertools import groupby
from operator import index
from typing import Any, Final, TypeAlias, TypeVar

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.evidence_migration import SliceOfOne, join_streams, read_stream
from otel_mlmon.processor.state.repository import Repository, decode_record, encode_record, quarantine_record

Migration: TypeAlias = Callable[[Repository], None]
"""Rewrites the records of one format as those of the next; must not commit."""

T = TypeVar("T")

_FAULTS: Final = (StoreError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""The errors that reading a record raises if it is damaged."""

_FIRSTS_OF_VALUES, _SUMS_OF_VALUES = 6, 10
"""The positions of the first buckets and of the sums in packed values."""
_SLICE_STREAMS: Final = 64
_EPOCH_WEEKDAY, _SATURDAY, _WEEKDAYS = 3, 5, 7


def add_dates_to_cycle_days(repository: Repository) -> None:
    """Gives the stored days of daily cycles their dates, which format 7 had not, and their counts as 32 bits.

    Format 7 says of a day only whether it is of a weekend: its date is the latest one before the next day's that fits.
    """

    def rewrite(_: str, record: dict[str, Any]) -> None:
        state = record["state"]
        state.pop("whole_days", None)
        for name in ("days", "inherited"):
            state[name] = _add_day_dates(state.get(name, []), before=state["day"])

    _rewrite_records(repository, "cycle", dict, rewrite, is_compressed=True)


def _add_day_dates(days: list[dict[str, Any]], *, before: int) -> list[dict[str, Any]]:
    """Gives dates to the stored days of a daily cycle, oldest first, the last before day `before` since 1970."""
    dated = []
    for day in reversed(days):
        before -= 1
        while ((before + _EPOCH_WEEKDAY) % _WEEKDAYS >= _SATURDAY) != bool(day["kind"]):
            before -= 1
        _, shape, blob = day["counts"]
        size = len(blob) // 8
        counts = struct.pack(f"<{size}i", *struct.unpack(f"<{size}q", blob))
        dated.append({"day": before, "counts": ("<i4", shape, counts)})
    return dated[::-1]


def pack_sums_and_split_series(repository: Repository) -> None:
    """Packs the exact sums of stored panes, points and series, and the layouts of panes; splits the records of series.

    Format 8 has two fields for each sum, a list for each part of a layout, and the identities of series with their
    progress.
    """
    identities: list[tuple[str, bytes]] = []

    def rewrite_pane(_: str, pane: list[Any]) -> None:
        streams, generations, number_counts, sums, sizes, counts = pane[5:]
        layout = encode_record((streams, generations, sizes), is_compressed=True)
        pane[5:] = [layout, _pack_numbers(number_counts), _pack_sums(sums), counts]

    def rewrite_values(_: str, record: list[Any]) -> None:
        record[-1][_SUMS_OF_VALUES] = _pack_sums(record[-1][_SUMS_OF_VALUES])

    def rewrite_series(key: str, record: list[Any]) -> None:
        rewrite_values(key, record)  # what never changes of them has a record of its own
        identities.append((key, encode_record((*record[:2], record.pop(2)))))

    for kind in ("pane", "pane5m", "pane1h"):
        _rewrite_records(repository, kind, list, rewrite_pane)
    _rewrite_records(repository, "point", list, rewrite_values)
    _rewrite_records(repository, "series", list, rewrite_series)
    repository.put("identities", identities)


def make_panes_blocks_of_one(repository: Repository) -> None:
    """Writes each stored pane as a block of one pane; the next compaction puts them into larger blocks.

    Format 9 has a record for each pane, with its values and no lists of them.
    """

    def rewrite(_: str, pane: list[Any]) -> None:
        model, start_ns, end_ns, duration, failed, layout, number_counts, sums, counts = pane
        pane[:] = [
            model,
            [(index(start_ns), index(end_ns))],
            [duration],
            [failed],
            [layout],
            [0],
            number_counts,
            sums,
            counts,
        ]

    for kind in ("pane", "pane5m", "pane1h"):
        _rewrite_records(repository, kind, list, rewrite)


def gather_points_in_runs(repository: Repository) -> None:
    """Gathers stored points that have the same times in runs, and counts the first buckets of histograms in steps.

    Format 10 has the times of each point by itself, and the ordinal of each first bucket.
    """

    def rewrite_values(_: str, record: list[Any]) -> None:
        firsts = record[-1][_FIRSTS_OF_VALUES]
        record[-1][_FIRSTS_OF_VALUES] = [first - before for before, first in zip([0, *firsts], firsts, strict=False)]

    def rewrite_points(key: str, record: list[Any]) -> None:
        rewrite_values(key, record)
        points = list(zip(*record[2:7], strict=True))
        runs = groupby(points, key=lambda point: (*point[1:], point[0][1]))
        record[2:7] = [[[*times, [name for (name, _), *_ in run]] for times, run in runs]]

    _rewrite_records(repository, "point", list, rewrite_points)
    _rewrite_records(repository, "series", list, rewrite_values)


def join_evidence_of_streams(repository: Repository) -> None:
    """Joins the evidence of up to 64 streams of a model, as many bins and one direction to one record of columns.

    Format 10 has a record for each stream. What is joined holds the panes up to the same entry of the evidence log.
    """
    groups: dict[tuple[Any, ...], list[SliceOfOne]] = {}
    former = repository.load("evidence")
    for key, blob in former.items():
        reason = ""
        try:
            stream = read_stream(decode_record(blob, dict))
        except _FAULTS as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            quarantine_record(repository, "evidence", key, blob, reason)
        else:
            groups.setdefault(stream.group, []).append(stream)
    repository.delete("evidence", former)
    parts = [
        streams[first : first + _SLICE_STREAMS]
        for streams in groups.values()
        for first in range(0, len(streams), _SLICE_STREAMS)
    ]
    repository.put(
        "evidence",
        [
            (f"{number:010d} {json.dumps(part[0].model)}", encode_record(join_streams(number, part)))
            for number, part in enumerate(parts, 1)
        ],
    )


def gather_points_and_streams(repository: Repository) -> None:
    """Gathers what format 10 stores by itself: points in runs, and the evidence of streams in columns."""
    gather_points_in_runs(repository)
    join_evidence_of_streams(repository)


def _rewrite_records(
    repository: Repository, kind: str, form: type[T], rewrite: Callable[[str, T], None], *, is_compressed: bool = False
) -> None:
    """Rewrites the records of a kind one by one, and sets aside those that are damaged: none holds up a migration.

    Args:
        repository: Where they are stored.
        kind: Their kind.
        form: What a record is decoded as, a `list` or a `dict`.
        rewrite: Changes a record, which it gets with its key.
        is_compressed: Whether they are stored compressed.

    Raises:
        StoreError: The repository refused them.
    """
    records: list[tuple[str, bytes]] = []
    for key, blob in repository.load(kind).items():
        reason = ""
        try:
            record = decode_record(blob, form)
            rewrite(key, record)
        except _FAULTS as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            quarantine_record(repository, kind, key, blob, reason)
        else:
            records.append((key, encode_record(record, is_compressed=is_compressed)))
    repository.put(kind, records)


def _pack_numbers(numbers: list[int]) -> tuple[str, bytes]:
    return "<i8", struct.pack(f"<{len(numbers)}q", *numbers)


def _pack_sums(sums: list[tuple[int, bytes]]) -> tuple[list[int], int, bytes]:
    """Packs exact sums, each an exponent and the bytes of a number, as exponents and numbers of equal width."""
    width = max((len(number) for _, number in sums), default=8)
    numbers = [
        int.from_bytes(number, "little", signed=True).to_bytes(width, "little", signed=True) for _, number in sums
    ]
    return [shift for shift, _ in sums] or [0], width, b"".join(numbers)


MIGRATIONS: Final[Mapping[int, Migration]] = {
    7: add_dates_to_cycle_days,
    8: pack_sums_and_split_series,
    9: make_panes_blocks_of_one,
    10: gather_points_and_streams,
}
"""By the format that is migrated from."""
