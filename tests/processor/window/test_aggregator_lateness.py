"""Late is not lost: backlogs, senders behind and ahead, clocks that jump, restarts between; all of it is counted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.receive.data_point import DataPoint
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.outcome import REJECTED_OUTCOMES
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.window import WindowSettings
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL, SECOND, T0, Bench, label

WINDOWS = WindowSettings(pane_s=10.0, lateness_s=15.0, rolling_s=3600.0)
DAY = 86_400
YEAR = 365 * DAY


class Sender:
    """A process that counts predictions, as deltas or as totals, on a clock of its own."""

    def __init__(self, bench: Bench, name: str, *, is_cumulative: bool = False, offset_s: float = 0.0) -> None:
        self.bench, self.name, self.is_cumulative, self.offset_s = bench, name, is_cumulative, offset_s
        self.sent = self.rejected = self.total = 0
        self._last_s = self._start_s = self._now_s

    @property
    def _now_s(self) -> float:
        return (self.bench.clock.now_ns - T0) / SECOND + self.offset_s

    def count(self, count: int) -> DataPoint:
        """The point of what was predicted since the last one, by the sender's clock."""
        at_s, self.total = self._now_s, self.total + count
        since_s = self._start_s if self.is_cumulative else min(self._last_s, at_s)
        self._last_s = at_s
        return label(
            self.total if self.is_cumulative else count,
            at_s=at_s, since_s=since_s, series=self.name, sender=self.name, is_cumulative=self.is_cumulative,
        )  # fmt: skip

    def deliver(self, point: DataPoint, count: int) -> None:
        """Sends a point, which brings `count` new predictions."""
        self.sent += count
        # By a clock that is set back two deltas may have the same time: the second is taken for a repetition.
        self.rejected += count * (self.bench.panes.add(point) in (*REJECTED_OUTCOMES, "duplicate"))

    def send(self, count: int) -> None:
        self.deliver(self.count(count), count)


def pass_time(bench: Bench, seconds: float) -> None:
    bench.clock.now_ns += round(seconds * SECOND)
    bench.out += bench.panes.close_panes(bench.clock.now_ns)


def restart(bench: Bench, directory: Path) -> None:
    store = SqliteRepository(directory, synchronous="OFF")
    bench.panes.save(store)
    store.commit()
    bench.reload(store)
    store.close()


def counted(bench: Bench) -> int:
    return bench.panes.summary(MODEL).predictions


def assert_all_counted(bench: Bench, *senders: Sender) -> None:
    """What was sent is counted at once, and stays so after all panes closed."""
    expected = sum(sender.sent - sender.rejected for sender in senders)
    assert counted(bench) == expected
    bench.flush()
    assert counted(bench) == expected


KINDS = pytest.mark.parametrize("is_cumulative", [False, True], ids=["delta", "cumulative"])
RESTARTS = pytest.mark.parametrize("restarts", [False, True], ids=["no restart", "restarts"])


@KINDS
@RESTARTS
@pytest.mark.parametrize("behind_s", [60, 600, 7200, DAY])
def test_two_replicas_one_of_them_behind(behind_s: int, is_cumulative: bool, restarts: bool, tmp_path: Path) -> None:
    bench = Bench(windows=WINDOWS)
    pass_time(bench, 2 * DAY)  # both began after the processor, by either clock
    ahead = Sender(bench, "a", is_cumulative=is_cumulative)
    behind = Sender(bench, "b", is_cumulative=is_cumulative, offset_s=-behind_s)
    for step in range(30):
        pass_time(bench, 10)
        ahead.send(2)
        behind.send(3)
        if restarts and step % 7 == 3:
            restart(bench, tmp_path)
    assert (ahead.rejected, behind.rejected) == (0, 0)
    assert_all_counted(bench, ahead, behind)
    summary = bench.panes.summary(MODEL)
    assert 0 < summary.late_predictions <= behind.sent
    # The other one is judged as ever, and not much later than without.
    assert bench.out[-1].end_ns > T0


@KINDS
@RESTARTS
@pytest.mark.parametrize("backlog_s", [600, DAY])
def test_a_backlog_beside_live_data_is_counted(
    backlog_s: int, is_cumulative: bool, restarts: bool, tmp_path: Path
) -> None:
    bench = Bench(windows=WINDOWS)
    live, away = (Sender(bench, name, is_cumulative=is_cumulative) for name in "ab")
    backlog: list[DataPoint] = []
    for _ in range(backlog_s // 120):
        pass_time(bench, 120)
        live.send(1)
        backlog.append(away.count(4))
    # Several consumers of one queue: out of order, but not by much.
    blocks = [backlog[start : start + 20] for start in range(0, len(backlog), 20)]
    for number, point in enumerate(point for block in blocks for point in (*block[::2], *block[1::2])):
        away.sent += 4
        outcome = bench.panes.add(point)
        assert outcome not in REJECTED_OUTCOMES
        if number % 50 == 0:
            pass_time(bench, 1)
            live.send(1)
            if restarts:
                restart(bench, tmp_path)
    assert_all_counted(bench, live, away)
    assert bench.panes.summary(MODEL).late_predictions > 0


def test_a_backlog_of_all_senders_is_event_time_like_any_other() -> None:
    bench = Bench(windows=WINDOWS, settings=ModelWindowSettings(learn=10))
    senders = [Sender(bench, name) for name in "ab"]
    points: list[DataPoint] = []
    for _ in range(60):
        bench.clock.now_ns += 10 * SECOND
        points += [sender.count(5) for sender in senders]
    for point in points:
        bench.panes.add(point)
        bench.out += bench.panes.close_panes(bench.clock.now_ns)
    bench.flush()
    assert bench.panes.counts == {"accepted": 120}
    assert (bench.panes.summary(MODEL).late_predictions, len(bench.out)) == (0, 60)


@KINDS
@RESTARTS
@pytest.mark.parametrize("ahead_s", [60, 600, YEAR])
def test_a_clock_that_is_ahead_goes_into_the_pane_of_its_arrival_and_harms_nobody(
    ahead_s: int, is_cumulative: bool, restarts: bool, tmp_path: Path
) -> None:
    bench = Bench(windows=WINDOWS, settings=ModelWindowSettings(learn=10))
    right = Sender(bench, "a", is_cumulative=is_cumulative)
    wrong = Sender(bench, "b", is_cumulative=is_cumulative, offset_s=ahead_s)
    for step in range(20):
        pass_time(bench, 10)
        right.send(2)
        wrong.send(3)
        if restarts and step % 5 == 2:
            restart(bench, tmp_path)
    assert_all_counted(bench, right, wrong)
    assert (right.rejected, wrong.rejected, bench.panes.summary(MODEL).late_predictions) == (0, 0, 0)
    assert len(bench.out) == 20


@settings(deadline=None, max_examples=60)
@given(
    offsets=st.lists(st.sampled_from([0, 0, 0, 3, 60, -60, 600, -600, YEAR]), min_size=1, max_size=25),
    is_cumulative=st.booleans(),
    restarts=st.sets(st.integers(0, 24), max_size=3),
    repeats=st.sets(st.integers(0, 24), max_size=5),
)
def test_a_clock_that_jumps_back_and_forth_loses_no_delta(
    offsets: list[int], is_cumulative: bool, restarts: set[int], repeats: set[int]
) -> None:
    bench = Bench(windows=WINDOWS)
    sender = Sender(bench, "a", is_cumulative=is_cumulative)
    steady = Sender(bench, "b")
    pass_time(bench, 700)
    with tempfile.TemporaryDirectory() as directory:
        for step, offset_s in enumerate(offsets):
            pass_time(bench, 10)
            steady.send(1)
            sender.offset_s = offset_s
            point = sender.count(step + 1)
            sender.deliver(point, step + 1)
            if step in repeats:
                assert bench.panes.add(point) in ("duplicate", "overlap")
            if step in restarts:
                restart(bench, Path(directory))
    if not is_cumulative:  # where a clock is set back over time that is counted, a delta is taken for a repeated one
        assert not sender.rejected or min(offsets) < max(offsets)
    assert steady.rejected == 0
    if is_cumulative:  # totals by a clock that jumps have no order: never more than was sent, and nobody else is harmed
        bench.flush()
        assert steady.sent <= counted(bench) <= steady.sent + sender.sent
    else:
        assert_all_counted(bench, sender, steady)


@KINDS
def test_points_older_than_panes_are_kept_are_rejected(is_cumulative: bool) -> None:
    bench = Bench(windows=WindowSettings(pane_s=10, amend_for_s=100))
    sender = Sender(bench, "a", is_cumulative=is_cumulative)
    pass_time(bench, 10)
    old = sender.count(3)
    pass_time(bench, 110)
    assert bench.panes.add(old) == "too_late"
    sender.send(2)
    assert bench.panes.counts == {"too_late": 1, "accepted": 1}
    assert counted(bench) == (5 if is_cumulative else 2)  # a total includes the earlier one


def test_a_late_point_is_in_the_rolling_window_and_in_the_stored_pane_but_no_evidence(tmp_path: Path) -> None:
    bench = Bench(windows=WINDOWS, settings=ModelWindowSettings(learn=10))
    for step in range(1, 13):
        bench.clock.now_ns = T0 + step * 10 * SECOND
        bench.panes.add(label(10, at_s=step * 10, since_s=step * 10 - 10, sender="a", series="a"))
        bench.out += bench.panes.close_panes(bench.clock.now_ns)
    before = next(iter(bench.panes.summary(MODEL).streams)).current_count
    windows = len(bench.out)
    assert bench.panes.add(label(7, at_s=55, sender="b", series="b")) == "late"
    assert bench.panes.close_panes(bench.clock.now_ns) == []
    (stream,) = bench.panes.summary(MODEL).streams
    assert (stream.current_count, stream.learned, len(bench.out)) == (before + 7, 10, windows)
    summary = bench.panes.summary(MODEL)
    store = SqliteRepository(tmp_path)
    bench.panes.save(store)
    store.commit()
    bench.reload(store)
    assert repr(bench.panes.summary(MODEL)) == repr(summary)
    store.close()


def test_open_panes_are_counted_at_once() -> None:
    bench = Bench(windows=WINDOWS)
    sender, other = Sender(bench, "a"), Sender(bench, "b", is_cumulative=True)
    pass_time(bench, 5)
    sender.send(3)
    other.send(4)
    pass_time(bench, 1)
    other.send(2)
    summary = bench.panes.summary(MODEL)
    assert (summary.predictions, summary.open_predictions, summary.updated_ns) == (9, 9, 0)
    bench.flush()
    summary = bench.panes.summary(MODEL)
    assert (summary.predictions, summary.open_predictions) == (9, 0)


def test_a_slow_sender_holds_up_panes_for_as_long_as_it_may_be_idle_and_no_longer() -> None:
    def last_closed(behind_s: float) -> float:
        bench = Bench(windows=WINDOWS)
        pass_time(bench, 1000)
        senders = Sender(bench, "a"), Sender(bench, "b", offset_s=-behind_s)
        for _ in range(30):
            pass_time(bench, 10)
            for sender in senders:
                sender.send(1)
        bench.out += bench.panes.close_panes(bench.clock.now_ns)
        return (bench.clock.now_ns - bench.out[-1].end_ns) / SECOND

    waited: dict[str, Any] = {str(behind): last_closed(behind) for behind in (0, 20, 40, 3000)}
    assert waited == {"0": 20.0, "20": 40.0, "40": 50.0, "3000": 50.0}


def test_a_backlog_of_one_model_holds_up_the_panes_of_no_other() -> None:
    bench = Bench(windows=WINDOWS)
    live, backlog = ModelKey("live", "1"), ModelKey("backlog", "1")
    left: set[ModelKey] = set()
    for pane in range(20):
        at_s = 100_000.0 + 10 * pane
        for model in (live, backlog):
            bench.add(label(5, at_s=at_s, since_s=at_s - 10, model=model, sender=model.name, series=model.name))
        for late in range(10 * pane, 10 * pane + 10):  # more panes than are closed meanwhile
            bench.panes.add(
                label(1, at_s=10.0 * late, since_s=10.0 * late - 10, model=backlog, sender="away", series="away")
            )
        answers = iter([False, False, False, True])
        bench.out += bench.panes.close_panes(bench.clock.now_ns, is_late=answers.__next__)
        left |= bench.panes.unclosed_models
    ends_s = [(window.end_ns - T0) / SECOND for window in bench.out if window.stream.model == live]
    assert ends_s == [100_000.0 + 10 * pane for pane in range(18)]
    assert left == {backlog}
    bench.flush()
    assert (bench.panes.summary(live).predictions, bench.panes.summary(backlog).predictions) == (100, 300)
