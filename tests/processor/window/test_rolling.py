"""The rolling windows of many streams, side by side, are each the sum of the panes that it has, bit for bit."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.window.rolling import RollingWindows
from otel_mlmon.processor.window.window import PaneCounts, PaneTable
from otel_mlmon.sketch.moments import ExactSum, Moments

LENGTH_NS, PANE_NS = 30, 10
NAMES = ("age", "label", "price")
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def count_pane(values: list[float], start_ns: int, *, bins: int = 2, scale: int = 1) -> PaneCounts:
    """Negative values in the first bin, the others in the second; each `scale` times."""
    moments = Moments.from_values(values)
    counts = np.zeros(bins, dtype=np.int64)
    counts[:2] = [scale * sum(value < 0 for value in values), scale * sum(value >= 0 for value in values)]
    return PaneCounts(start_ns, start_ns + PANE_NS, bins, counts, moments.count, moments.exact_sum)


STREAMS = st.dictionaries(st.sampled_from(NAMES), st.lists(FLOATS, max_size=5), max_size=3)
STEPS = st.lists(
    st.tuples(
        STREAMS,
        st.integers(0, 3),  # panes that are skipped before
        st.integers(0, 3),  # by how many panes it is late
        st.sampled_from([None, *NAMES]),  # the stream that gets other bins
        st.sampled_from([1, 2**7, 2**20, 2**40]),
    ),
    max_size=14,
)


@given(steps=STEPS)
def test_each_rolling_window_is_the_sum_of_its_panes(
    steps: list[tuple[dict[str, list[float]], int, int, str | None, int]],
) -> None:
    rolling, now_ns = RollingWindows(LENGTH_NS), 0
    bins, panes = dict.fromkeys(NAMES, 2), {name: list[PaneCounts]() for name in NAMES}
    for values, skipped, late, cleared, scale in steps:
        now_ns += PANE_NS * (1 + skipped)
        rolling.evict(now_ns)
        if cleared is not None:
            rolling.clear(cleared)
            bins[cleared] += 1
            panes[cleared] = []
        start_ns = max(now_ns - PANE_NS * (1 + late), now_ns - LENGTH_NS)
        added = {name: count_pane(numbers, start_ns, bins=bins[name], scale=scale) for name, numbers in values.items()}
        rolling.add(PaneTable.build(added), start_ns, start_ns + PANE_NS)
        for name in NAMES:
            present = [pane for pane in panes[name] if pane.end_ns > now_ns - LENGTH_NS]
            panes[name] = present + ([added[name]] if name in added else [])
            check_sums(rolling, name, panes[name])


def check_sums(rolling: RollingWindows, name: str, panes: list[PaneCounts]) -> None:
    moments = Moments(
        count=sum(pane.number_count for pane in panes),
        exact_sum=sum((pane.exact_sum for pane in panes), ExactSum()),
    )
    counts = rolling.sums().counts(name)
    expected = np.sum([pane.counts for pane in panes], axis=0) if panes else np.zeros(counts.size)
    assert counts.tolist() == expected.tolist()
    assert repr(rolling.sums().mean(name)) == repr(moments.mean)
    assert rolling.sums().start_ns(name, -1) == min((pane.start_ns for pane in panes), default=-1)


def test_late_counts_of_a_pane_make_no_more_rows() -> None:
    rolling, panes = RollingWindows(LENGTH_NS), list[PaneCounts]()
    for start_ns in (0, 10, *[0, 10] * 50):
        pane = count_pane([1.5, -2.0, 2.0**-1074], start_ns, scale=100)
        # Senders that are late by turns have other streams: each of their sets has one row.
        rolling.add(PaneTable.build({"age": pane, "label": pane}), start_ns, start_ns + PANE_NS)
        rolling.add(PaneTable.build({"price": pane}), start_ns, start_ns + PANE_NS)
        panes.append(pane)
    assert len(rolling._rows) == 4
    for now_ns in (39, 40, 50):
        rolling.evict(now_ns)
        panes = [pane for pane in panes if pane.end_ns > now_ns - LENGTH_NS]
        for name in ("age", "label", "price"):
            check_sums(rolling, name, panes)
    assert len(rolling._rows) == 0


def test_an_empty_rolling_window_has_no_counts() -> None:
    rolling = RollingWindows(LENGTH_NS)
    sums = rolling.sums()
    assert (sums.counts("age").shape, math.isnan(sums.mean("age")), sums.start_ns("age", 7)) == ((0,), True, 7)
    rolling.add(PaneTable.build({"age": count_pane([1.0], 0)}), 0, 10)
    rolling.evict(39)
    assert (rolling.sums().counts("age").tolist(), rolling.sums().start_ns("age", 7)) == ([0, 1], 0)
    rolling.evict(40)
    assert (rolling.sums().counts("age").tolist(), rolling.sums().start_ns("age", 7)) == ([0, 0], 7)
    rolling.clear("age")
    assert rolling.sums().counts("age").shape == (0,)


def test_sums_that_were_handed_on_never_change() -> None:
    rolling = RollingWindows(LENGTH_NS)
    rolling.add(PaneTable.build({"age": count_pane([1.0], 0)}), 0, 10)
    before = rolling.sums()
    rolling.add(PaneTable.build({"age": count_pane([3.0, -1.0], 10), "price": count_pane([2.0], 10)}), 10, 20)
    after = rolling.sums()
    rolling.evict(40)
    rolling.clear("price")
    states = [
        (sums.counts("age").tolist(), sums.mean("age"), sums.start_ns("age", 7), sums.counts("price").tolist())
        for sums in (before, after, rolling.sums())
    ]
    assert states == [([0, 1], 1.0, 0, []), ([1, 2], 1.0, 0, [0, 1]), ([1, 1], 1.0, 10, [])]
