"""Panes that are stacked are what they were, and make the rolling windows that they make one by one, bit for bit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.pane_stack import PaneStack, split_stacks
from otel_mlmon.processor.window.pane_store import compact_panes, load_panes, put_panes
from otel_mlmon.processor.window.rolling import RollingWindows
from otel_mlmon.processor.window.window import ModelPane, PaneCounts, PaneTable, WindowSettings
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import ExactSum
from otel_mlmon.sketch.stream_sketch import StreamSketch
from tests.support.observations import MODEL, SECOND

T0 = 1_700_000_000 * SECOND // (300 * SECOND) * 300 * SECOND
NAMES = ("age", "label", "price")
PANE_NS = 10 * SECOND
COUNTS = st.lists(st.sampled_from([0, 1, 200, 300, 70_000, 2**33]), min_size=2, max_size=2)
SUMS = st.one_of(
    st.integers(-9, 9).map(lambda number: number << 1074),
    st.integers(-(2**62), 2**62),
    st.integers(-(2**90), 2**90),
    st.sampled_from([1, 1 << 2000, -(3 << 1000), 2**63 - 1, -(2**63)]),
)
STREAM = st.tuples(COUNTS, st.integers(0, 70_000), SUMS)
PANES = st.lists(
    st.one_of(
        st.fixed_dictionaries(dict.fromkeys(NAMES, STREAM)), st.dictionaries(st.sampled_from(NAMES), STREAM, max_size=3)
    ),
    min_size=1,
    max_size=12,
)


def build_panes(panes: list[dict[str, tuple[list[int], int, int]]]) -> list[ModelPane]:
    built = []
    for number, streams in enumerate(panes):
        start_ns, end_ns = T0 + number * PANE_NS, T0 + (number + 1) * PANE_NS
        parts = {
            name: PaneCounts(start_ns, end_ns, 0, np.array(counts, dtype=np.int64), number_count, ExactSum(units))
            for name, (counts, number_count, units) in streams.items()
        }
        duration = StreamSketch.from_parts(
            [Histogram.from_values(np.arange(number, dtype=np.float64), (1.0, 5.0))], {}, 0
        )
        built.append(
            ModelPane(
                model=MODEL, start_ns=start_ns, end_ns=end_ns, duration=duration, failed=number,
                streams=PaneTable.build(parts),
            )
        )  # fmt: skip
    return built


def store_panes(panes: list[ModelPane], *, is_block: bool) -> list[PaneStack]:
    """The panes as a start reads them, out of a block or each out of a record of its own."""
    with TemporaryDirectory() as folder:
        store = SqliteRepository(Path(folder), synchronous="OFF")
        put_panes(store, panes)
        if is_block:
            now_ns = T0 + 1_000 * SECOND
            compact_panes(store, WindowSettings(), now_ns, rolling_since_ns={})
        stacks = list(load_panes(store, 0))
        store.close()
    return stacks


def describe_rolling(rolling: RollingWindows) -> list[tuple[Any, ...]]:
    sums = rolling.sums()
    return [(sums.counts(name).tolist(), repr(sums.mean(name)), sums.start_ns(name, -1)) for name in NAMES]


@settings(max_examples=60, deadline=None)
@given(panes=PANES, is_block=st.booleans(), skipped=st.integers(0, 5))
@example(panes=[{"age": ([1, 0], 1, 2**62 + 1)}] * 5, is_block=True, skipped=0)
@example(panes=[{"age": ([1, 0], 1, 2**63)}, {"age": ([1, 0], 1, 1)}], is_block=True, skipped=0)
@example(panes=[{"age": ([255, 0], 255, 1)}] * 3, is_block=True, skipped=1)
def test_stacked_panes_make_the_rolling_windows_that_they_make_one_by_one(
    panes: list[dict[str, tuple[list[int], int, int]]], is_block: bool, skipped: int
) -> None:
    built = build_panes(panes)
    one_by_one, stacked = RollingWindows(12 * PANE_NS), RollingWindows(12 * PANE_NS)
    stacks = store_panes(built, is_block=is_block)
    chosen_ns = T0 + skipped * PANE_NS
    for pane in built:
        if pane.start_ns >= chosen_ns:
            one_by_one.add(pane.streams, pane.start_ns, pane.end_ns)
    for stack in stacks:
        present = stack.select_panes(lambda start_ns, _: start_ns >= chosen_ns)
        if present.times_ns:
            stacked.add_stack(present)
    assert describe_rolling(stacked) == describe_rolling(one_by_one)
    late = build_panes([{name: ([1, 2], 3, 5 << 1000) for name in NAMES}] * len(panes))
    for pane in late[::2]:
        for rolling in (one_by_one, stacked):
            rolling.add(pane.streams, pane.start_ns, pane.end_ns)
    for number in range(13, 13 + len(panes)):
        for rolling in (one_by_one, stacked):
            rolling.evict(T0 + number * PANE_NS)
        assert describe_rolling(stacked) == describe_rolling(one_by_one)


@settings(max_examples=30, deadline=None)
@given(panes=PANES, is_block=st.booleans())
def test_stacked_panes_are_split_into_what_they_were(
    panes: list[dict[str, tuple[list[int], int, int]]], is_block: bool
) -> None:
    built = build_panes(panes)
    assert [*map(describe_pane, split_stacks(store_panes(built, is_block=is_block)))] == [*map(describe_pane, built)]


def describe_pane(pane: ModelPane) -> tuple[Any, ...]:
    streams = {name: (*counts[:3], counts.counts.tolist(), *counts[4:]) for name, counts in split_pane(pane).items()}
    return pane.model, pane.start_ns, pane.end_ns, pane.failed, repr(pane.duration), streams


def split_pane(pane: ModelPane) -> dict[str, PaneCounts]:
    return pane.streams.split(pane.start_ns, pane.end_ns)


@given(panes=PANES, names=st.sets(st.sampled_from(NAMES)))
def test_some_streams_of_a_stack_have_the_counts_that_they_had(
    panes: list[dict[str, tuple[list[int], int, int]]], names: set[str]
) -> None:
    built = build_panes([streams for streams in panes if list(streams) == list(panes[0])])
    (stack,) = store_panes(built, is_block=True)
    expected = [{name: repr(counts) for name, counts in split_pane(pane).items() if name in names} for pane in built]
    selected = stack.select_streams(sorted(names))
    split = selected.split()
    assert [{name: repr(counts) for name, counts in split_pane(pane).items()} for pane in split] == expected
    present = [name for name in panes[0] if name in names]
    sums = [sum(pane.streams.split(0, 0)[name].exact_sum for pane in built) for name in present]
    assert selected.sums.add_rows() == sums
