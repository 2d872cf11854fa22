"""Panes are stored one by one, in blocks, by 5 minutes, then by the hour, and none of their counts is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otel_mlmon.processor.state.repository import DAMAGED, RecordKind, encode_record, load_records, put_records
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.packed_numbers import PackedSums, pack_ints
from otel_mlmon.processor.window.pane_stack import split_stacks
from otel_mlmon.processor.window.pane_store import (
    BLOCK,
    BLOCK_HOURS,
    BLOCK_MINUTES,
    PANE,
    PANE_HOURS,
    PANE_MINUTES,
    PaneBlock,
    compact_panes,
    load_panes,
    merge_panes,
    put_panes,
)
from otel_mlmon.processor.window.window import ModelPane, PaneCounts, PaneLayout, PaneTable, WindowSettings
from otel_mlmon.sketch.moments import ExactSum
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL, SECOND

HOUR = 3600
T0 = 472_224 * HOUR * SECOND
WINDOWS = WindowSettings()


def pane(end_s: float, count: int = 1, *, generation: int = 0) -> ModelPane:
    end_ns = T0 + round(end_s * SECOND)
    start_ns = end_ns - 10 * SECOND
    counts = PaneCounts(start_ns, end_ns, generation, np.array([count, 0], dtype=np.int64), 0, ExactSum())
    return ModelPane(
        model=MODEL,
        start_ns=start_ns,
        end_ns=end_ns,
        duration=StreamSketch(),
        failed=count,
        streams=PaneTable.build({"s": counts}),
    )


def stored(store: SqliteRepository) -> dict[str, list[list[tuple[float, int, int]]]]:
    """End, failed calls and counts of the panes of each record, by kind."""
    kinds = {
        kind.name: [
            [
                ((pane.end_ns - T0) / SECOND, pane.failed, int(pane.streams.counts.sum()))
                for pane in split_stacks(record.unpack())
            ]
            for record in load_records(store, kind).values()
        ]
        for kind in (PANE, PANE_MINUTES, PANE_HOURS, BLOCK, BLOCK_MINUTES, BLOCK_HOURS)
    }
    return {kind: records for kind, records in kinds.items() if records}


def compact(
    store: SqliteRepository, now_s: float, *, rolling_since_s: float = 1e6, windows: WindowSettings = WINDOWS
) -> None:
    now_ns = T0 + round(now_s * SECOND)
    compact_panes(store, windows, now_ns, rolling_since_ns={MODEL: T0 + round(rolling_since_s * SECOND)})


def test_panes_are_put_into_blocks_merged_with_age_and_removed_after_the_retention(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(end_s) for end_s in range(10, HOUR + 1, 10)])
    compact(store, HOUR + 50)
    blocks = [[(end_s, 1, 1) for end_s in range(first + 10, first + 301, 10)] for first in range(0, HOUR, 300)]
    assert stored(store) == {"pane": [[row] for row in blocks[-1]], "panes": blocks[:-1]}
    loaded = split_stacks(load_panes(store, T0 + 290 * SECOND))
    assert [record.end_ns for record in loaded] == [T0 + end_s * SECOND for end_s in range(290, HOUR + 1, 10)]
    compact(store, 2 * HOUR)
    assert stored(store) == {"panes": blocks}
    compact(store, 2.5 * HOUR)
    first = [(300.0 * n, 30, 30) for n in range(1, 7)]
    assert stored(store) == {"panes": blocks[6:], "panes5m": [first]}
    compact(store, 3 * HOUR)
    assert stored(store) == {"panes5m": [[(300.0 * n, 30, 30) for n in range(1, 13)]]}
    compact(store, 50 * HOUR)
    assert stored(store) == {"panes1h": [[(HOUR, 360, 360)]]}
    compact(store, 15 * 24 * HOUR)
    assert stored(store) == {}
    store.close()


def test_what_comes_late_is_merged_into_its_pane_in_whatever_form_it_is(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(20), pane(30)])
    merge_panes(store, [pane(20, 5), pane(20, 7), pane(40, 2)])
    assert stored(store) == {"pane": [[(20.0, 13, 13)], [(30.0, 1, 1)], [(40.0, 2, 2)]]}
    compact(store, 1000)
    merge_panes(store, [pane(30, 100), pane(50, 3)])
    merge_panes(store, [pane(30, 100)])
    rest = [(40.0, 2, 2), (50.0, 3, 3)]
    assert stored(store) == {
        "panes": [[(20.0, 13, 13), (30.0, 1, 1), (40.0, 2, 2)]],
        "pane": [[(30.0, 200, 200)], [(50.0, 3, 3)]],
    }
    assert [(record.end_ns - T0, record.failed) for record in split_stacks(load_panes(store, T0 + 30 * SECOND))] == [
        (30 * SECOND, 1), (30 * SECOND, 200), (40 * SECOND, 2), (50 * SECOND, 3),
    ]  # fmt: skip
    compact(store, 1000)
    assert stored(store) == {"panes": [[(20.0, 13, 13), (30.0, 201, 201), *rest]]}
    compact(store, 3 * HOUR)
    merge_panes(store, [pane(30, 1000)])
    assert stored(store) == {"panes5m": [[(300.0, 219, 219)]], "pane": [[(30.0, 1000, 1000)]]}
    compact(store, 3 * HOUR)
    assert stored(store) == {"panes5m": [[(300.0, 1219, 1219)]]}
    store.close()


def test_panes_of_the_rolling_window_stay_as_they_are(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(10), pane(300), pane(310), pane(600)])
    compact(store, 1000)
    compact(store, 24 * HOUR, rolling_since_s=305)
    assert stored(store) == {"panes": [[(310.0, 1, 1), (600.0, 1, 1)]], "panes5m": [[(300.0, 2, 2)]]}
    store.close()


def test_panes_older_than_the_retention_are_removed_from_their_block(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(end_s) for end_s in range(10, 601, 10)])
    compact(store, 1000)
    compact(store, 1000, windows=WindowSettings(retention_s=950))
    assert [end_s for block in stored(store)["panes"] for end_s, _, _ in block] == [*range(50, 601, 10)]
    compact(store, 1000, windows=WindowSettings(retention_s=700))
    assert [len(block) for block in stored(store)["panes"]] == [1, 30]
    store.close()


def test_panes_of_models_streams_and_bins_that_change_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    other = ModelKey("other", "2", "")
    panes = [
        pane(10), pane(20, 300, generation=1), replace(pane(20, 70_000), model=other), pane(30, 2**40, generation=1),
        replace(pane(40), streams=PaneTable.build({})), pane(50, generation=2),
    ]  # fmt: skip
    put_panes(store, panes)
    singles = [facts(record) for record in split_stacks(load_panes(store, 0))]
    assert singles == [facts(record) for record in panes]
    compact(store, 1000)
    assert {kind: len(records) for kind, records in stored(store).items()} == {"panes": 2}
    assert [facts(record) for record in split_stacks(load_panes(store, 0))] == singles
    store.close()


def facts(record: ModelPane) -> tuple[object, ...]:
    table = record.streams
    return (
        (record.model, record.start_ns, record.end_ns, repr(record.duration), record.failed),
        (table.layout, table.counts.tolist(), table.number_counts, table.sums),
    )


def test_of_counts_over_other_bins_the_later_stay() -> None:
    merged = pane(10, 3).merge(pane(10, 4, generation=1))
    assert (merged.failed, merged.streams.counts.tolist()) == (7, [4, 0])
    assert pane(10, 4, generation=1).merge(pane(10, 3)).streams.counts.tolist() == [4, 0]


@pytest.mark.parametrize(
    "fields",
    [
        {"layouts": [b"no layout"]},
        {"layouts": [encode_record(PaneLayout(("s",), (0,), (3,)))]},
        {"layouts": [encode_record(PaneLayout(("s", "s"), (0, 0), (1, 1)))]},
        {"layouts": [encode_record(PaneLayout(("s",), (), (2,)))]},
        {"layouts": [encode_record(PaneLayout(("s", "t"), (0, 0), (3, -1)))]},
        {"layouts": []},
        {"layout_numbers": []},
        {"layout_numbers": [1]},
        {"layout_numbers": [-1]},
        {"times_ns": [], "durations": [], "failed": [], "layout_numbers": []},
        {"failed": [1, 2]},
        {"number_counts": pack_ints(np.array([1, 2]))},
        {"sums": PackedSums((0,), 8, b"")},
        {"counts": ("<f8", b"")},
    ],
)
@pytest.mark.parametrize("kind", [PANE, BLOCK])
def test_a_record_of_panes_that_contradicts_itself_is_set_aside(
    kind: RecordKind[PaneBlock], fields: dict[str, Any], tmp_path: Path
) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(10), pane(310)])
    if kind is BLOCK:
        compact(store, 1000)
    first, _ = load_records(store, kind).items()
    put_records(store, kind, [(first[0], first[1]._replace(**fields))])
    assert [record.end_ns for record in split_stacks(load_panes(store, 0))] == [T0 + 310 * SECOND]
    assert [*store.load(DAMAGED)] == [f"{kind.name} {first[0]}"]
    store.close()
