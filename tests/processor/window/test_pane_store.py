"""Panes are stored one by one, then by 5 minutes, then by the hour, and none of their counts is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otel_mlmon.processor.state.repository import DAMAGED, encode_record, load_records, put_records
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.packing import PackedSums, pack_ints, unpack_ints
from otel_mlmon.processor.window.pane_store import (
    PANE,
    PANE_HOURS,
    PANE_MINUTES,
    compact_panes,
    load_panes,
    merge_panes,
    put_panes,
)
from otel_mlmon.processor.window.window import ModelPane, PaneCounts, PaneLayout, PaneTable, WindowSettings
from otel_mlmon.sketch.moments import ExactSum
from otel_mlmon.sketch.stream_sketch import StreamSketch
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


def stored(store: SqliteRepository) -> dict[str, list[tuple[float, int, int]]]:
    """End, failed calls and counts of each record, by kind."""
    return {
        kind.name: [
            ((record.end_ns - T0) / SECOND, record.failed, int(unpack_ints(record.counts).sum()))
            for record in load_records(store, kind).values()
        ]
        for kind in (PANE, PANE_MINUTES, PANE_HOURS)
    }


def compact(store: SqliteRepository, now_s: float, *, rolling_since_s: float = 1e6) -> None:
    now_ns = T0 + round(now_s * SECOND)
    compact_panes(store, WINDOWS, now_ns, rolling_since_ns={MODEL: T0 + round(rolling_since_s * SECOND)})


def test_panes_are_merged_with_age_and_removed_after_the_retention(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(end_s) for end_s in range(10, HOUR + 1, 10)])
    compact(store, 2 * HOUR)
    assert (len(stored(store)["pane"]), stored(store)["pane5m"]) == (360, [])
    compact(store, 3 * HOUR)
    assert stored(store) == {"pane": [], "pane5m": [(300.0 * n, 30, 30) for n in range(1, 13)], "pane1h": []}
    compact(store, 50 * HOUR)
    ends = [end for end, _, _ in stored(store)["pane1h"]]
    assert (sum(failed for _, failed, _ in stored(store)["pane1h"]), len(ends), stored(store)["pane5m"]) == (360, 1, [])
    compact(store, 15 * 24 * HOUR)
    assert stored(store) == {"pane": [], "pane5m": [], "pane1h": []}
    store.close()


def test_what_comes_late_is_merged_into_its_pane_in_whatever_form_it_is(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(20), pane(30)])
    merge_panes(store, [pane(20, 5), pane(20, 7), pane(40, 2)])
    assert stored(store)["pane"] == [(20.0, 13, 13), (30.0, 1, 1), (40.0, 2, 2)]
    compact(store, 3 * HOUR)
    merge_panes(store, [pane(30, 100)])
    assert [record.failed for record in load_panes(store, 0)] == [100]
    compact(store, 3 * HOUR)
    assert [failed for _, failed, _ in stored(store)["pane5m"]] == [116]
    store.close()


def test_panes_of_the_rolling_window_stay_as_they_are(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(10), pane(600)])
    compact(store, 24 * HOUR, rolling_since_s=300)
    assert {kind: len(records) for kind, records in stored(store).items()} == {"pane": 1, "pane5m": 1, "pane1h": 0}
    store.close()


def test_of_counts_over_other_bins_the_later_stay() -> None:
    merged = pane(10, 3).merge(pane(10, 4, generation=1))
    assert (merged.failed, merged.streams.counts.tolist()) == (7, [4, 0])
    assert pane(10, 4, generation=1).merge(pane(10, 3)).streams.counts.tolist() == [4, 0]


@pytest.mark.parametrize(
    "fields",
    [
        {"layout": b"no layout"},
        {"layout": encode_record(PaneLayout(("s",), (0,), (3,)))},
        {"layout": encode_record(PaneLayout(("s", "s"), (0, 0), (1, 1)))},
        {"layout": encode_record(PaneLayout(("s",), (), (2,)))},
        {"number_counts": pack_ints(np.array([1, 2]))},
        {"sums": PackedSums((0,), 8, b"")},
        {"counts": ("<f8", b"")},
    ],
)
def test_a_pane_that_contradicts_itself_is_set_aside(fields: dict[str, Any], tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path, synchronous="OFF")
    put_panes(store, [pane(10), pane(20)])
    first, _ = load_records(store, PANE).items()
    put_records(store, PANE, [(first[0], first[1]._replace(**fields))])
    assert [record.end_ns for record in load_panes(store, 0)] == [T0 + 20 * SECOND]
    assert [*store.load(DAMAGED)] == [f"pane {first[0]}"]
    store.close()
