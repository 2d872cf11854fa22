from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.detect.arrays import HOUR_NS, DailyTraffic
from otel_mlmon.processor.detect.state import DAY_NS
from tests.support.evidence import plain

START_NS = 20_000 * DAY_NS


def add(traffic: DailyTraffic, row: int, items: float, end_ns: int) -> None:
    traffic.add(np.array([row]), np.array([items]), np.array([end_ns]))


def per_day(traffic: DailyTraffic, row: int, *, is_over: bool = False) -> float:
    return float(traffic.items_per_day(np.array([row]), is_over=is_over)[0])


def test_a_young_stream_goes_on_as_it_began_and_is_not_boasted_of() -> None:
    traffic = DailyTraffic()
    traffic.start(0)
    add(traffic, 0, 600.0, START_NS)
    assert per_day(traffic, 0) == 600.0 * 24
    add(traffic, 0, 600.0, START_NS + 10 * 10**9)
    assert per_day(traffic, 0) == 1_200.0 * 24
    add(traffic, 0, 600.0, START_NS + 2 * HOUR_NS)
    assert (per_day(traffic, 0), per_day(traffic, 0, is_over=True)) == (1_800.0 * 12, 1_800.0)


@given(st.lists(st.tuples(st.integers(1, 40 * HOUR_NS), st.integers(0, 1_000)), min_size=1, max_size=60))
def test_it_is_the_last_24_hours_whatever_the_gaps(panes: list[tuple[int, int]]) -> None:
    traffic, time_ns, added = DailyTraffic(), START_NS, []
    traffic.start(3)
    for gap_ns, items in panes:
        time_ns += gap_ns
        add(traffic, 3, float(items), time_ns)
        added.append((time_ns // HOUR_NS, items))
    last = added[-1][0]
    assert per_day(traffic, 3, is_over=True) == sum(items for hour, items in added if hour > last - 24)
    copy = DailyTraffic()
    copy.start(1)
    copy.restore([1], traffic.pack([3]))
    assert plain(copy.pack([1])) == plain(traffic.pack([3]))


def test_rows_do_not_see_each_other() -> None:
    together, rng = DailyTraffic(), np.random.default_rng(1)
    alone = [DailyTraffic() for _ in range(5)]
    for one, row in ((one, row) for one in (together, *alone) for row in range(5)):
        one.start(row)
    times_ns = np.full(5, START_NS)
    for _ in range(50):
        times_ns = times_ns + rng.integers(1, 30 * HOUR_NS, 5)
        items = rng.integers(0, 100, 5).astype(float)
        together.add(np.arange(5), items, times_ns)
        for row, one in enumerate(alone):
            add(one, row, items[row], int(times_ns[row]))
    assert [plain(together.pack([row])) for row in range(5)] == [
        plain(one.pack([row])) for row, one in enumerate(alone)
    ]
