"""Warnings at 80 % and 100 % of a limit, and the limit on the bounds of a stream's histograms."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.errors import OverloadedError
from otel_mlmon.processor.receive.data_point import DataPoint
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.outcome import ResourceLimit
from otel_mlmon.processor.window.window import WindowSettings
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL, SECOND, T0, Bench, durations, label, numbers, point


def test_a_limit_warns_at_80_and_100_percent_once_until_there_is_room_again(caplog: pytest.LogCaptureFixture) -> None:
    limit = ResourceLimit("max_streams", 10, "streams")
    warned = []
    for count in (7, 8, 9, 10, 10, 9, 10, 7, 8, 10):
        caplog.clear()
        limit.report(count)
        warned.append((count, len(caplog.messages)))
    assert warned == [(7, 0), (8, 1), (9, 0), (10, 1), (10, 0), (9, 0), (10, 0), (7, 0), (8, 1), (10, 1)]
    assert caplog.messages == [
        "10 of 10 streams are in use (limits.max_streams): new ones are rejected. Raise the limit, or lower "
        "limits.stale_after."
    ]


@pytest.mark.parametrize(("count", "added", "has_room"), [(9, 1, True), (10, 1, False), (8, 2, True), (9, 2, False)])
def test_the_last_one_fits(count: int, added: int, has_room: bool) -> None:
    assert ResourceLimit("max_streams", 10, "streams").has_room(count, added) is has_room


def duration(*bounds: float, at_s: float, series: str = "one") -> DataPoint:
    """A histogram of one call over these bounds."""
    counts = np.array([1] + [0] * len(bounds), dtype=np.int64)
    sketch = Histogram(bounds=bounds, counts=counts, moments=Moments.from_total(count=1, total=0.1))
    return point(semconv.DURATION.name, sketch, at_s=at_s, since_s=at_s - 1, series=series)


def test_bounds_that_change_with_every_point_are_limited_for_each_stream(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(windows=WindowSettings(lateness_s=1000, stale_after_s=3600, max_bounds=5))
    outcomes = [bench.add(duration(1.0, 2.0 + at_s, at_s=at_s)) for at_s in range(1, 10)]
    assert outcomes == ["accepted"] * 5 + ["too_many_bounds"] * 4
    assert caplog.messages == [
        "4 of 5 bounds of the histograms of a stream are in use (limits.max_bounds): new ones are rejected when it is "
        "reached. Raise the limit, or lower limits.stale_after.",
        "5 of 5 bounds of the histograms of a stream are in use (limits.max_bounds): new ones are rejected. Raise the "
        "limit, or lower limits.stale_after.",
    ]
    # What is known goes on, of every series; so do other streams, and histograms without bounds of their own.
    assert bench.add(duration(1.0, 3.0, at_s=11)) == "accepted"
    assert bench.add(duration(1.0, 4.0, at_s=12, series="two")) == "accepted"
    assert bench.add(duration(1.0, 99.0, at_s=12, series="three")) == "too_many_bounds"
    assert bench.add(point(semconv.DURATION.name, numbers(1.0), at_s=12, series="four")) == "accepted"
    assert bench.add(point(semconv.CONFIDENCE.name, duration(9.0, at_s=13).value.sketch, at_s=13)) == "accepted"
    assert "overflow" in {stream.stream for stream in bench.panes.summary(MODEL).streams}


def test_bounds_of_long_ago_make_room_unless_the_reference_has_them() -> None:
    def add(bound: float, *, at_s: float) -> str:
        return bench.add(point(semconv.CONFIDENCE.name, duration(bound, at_s=at_s).value.sketch, at_s=at_s))

    bench = Bench(windows=WindowSettings(lateness_s=10, stale_after_s=3600, max_bounds=2))
    assert [add(float(at_s), at_s=at_s) for at_s in (1, 2, 3)] == ["accepted"] * 2 + ["too_many_bounds"]
    bench.clock.now_ns += 3_700_000_000_000
    assert [add(3.0, at_s=3_702), add(4.0, at_s=3_703)] == ["accepted", "accepted"]
    stream = bench.panes._state.models[MODEL].streams[semconv.STREAM_CONFIDENCE]
    assert set(stream.bounds) == {(3.0,), (4.0,)}
    stream.learned.state.sketch = StreamSketch.from_parts([durations(0.1, bounds=(7.0,))], {}, 0)
    stream.bounds.clear()  # as after a start
    assert [add(bound, at_s=3_710 + bound) for bound in (7.0, 8.0, 9.0)] == ["accepted", "accepted", "too_many_bounds"]


PENDING = WindowSettings(pane_s=10.0, lateness_s=1000.0, idle_after_s=2000.0, max_pending_points=10)


def test_points_that_wait_are_limited_and_panes_close_at_the_limit_without_their_lateness(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(windows=PENDING)
    assert [bench.add(label(1, at_s=at_s)) for at_s in range(1, 11)] == ["accepted"] * 10
    assert caplog.messages == [
        f"{count} of 10 points of open panes are in use (limits.max_pending_points): panes close without waiting for "
        f"late data, and requests are refused and come again{when}. Raise the limit, or lower windows.pane, "
        "windows.lateness or windows.idle_after."
        for count, when in ((8, " when it is reached"), (10, ""))
    ]
    for again in (label(1, at_s=11), label(1, at_s=1)):
        with pytest.raises(OverloadedError, match=r"^Too many points wait until their pane closes\.$"):
            bench.add(again)
    assert (bench.panes.pending_points, bench.panes.counts) == (10, {"accepted": 10})
    (window,) = bench.panes.close_panes(bench.clock.now_ns)  # of the first pane, which the watermark has passed
    assert (window.end_ns - T0, bench.panes.pending_points) == (10 * SECOND, 0)
    assert [bench.add(label(1, at_s=at_s, series=str(at_s))) for at_s in (11, 3)] == ["accepted", "late"]
    bench.flush()
    assert (bench.panes.pending_points, bench.panes.summary(MODEL).predictions) == (0, 12)


def test_at_the_limit_the_oldest_panes_of_all_models_close_until_a_tenth_of_the_room_is_free() -> None:
    other = ModelKey("other", "1")
    bench = Bench(windows=replace(PENDING, max_pending_points=100))
    bench.clock.now_ns += 40 * SECOND
    panes = [(5, 10, MODEL), (6, 10, other), (30, 20, other), (58, 30, MODEL)]
    for count, end_s, model in panes:
        seconds = [end_s - number / 10 for number in range(count)]
        bench.add_request(label(1, at_s=at_s, since_s=at_s - 1, model=model, series=f"{model}") for at_s in seconds)
    bench.add_request(label(1, at_s=40, since_s=39, model=model, series=f"{model}") for model in (MODEL, other))
    assert bench.panes.pending_points == 101
    closed = {(window.end_ns - T0) // SECOND for window in bench.panes.close_panes(bench.clock.now_ns)}
    assert (closed, bench.panes.pending_points, bench.panes.unclosed_models) == ({10, 20}, 60, set())
    assert bench.panes.close_panes(bench.clock.now_ns) == []
    late = [label(1, at_s=at_s, model=other) for at_s in (18, 28)]
    assert [bench.panes.add(observation) for observation in late] == ["late", "accepted"]
    bench.flush()
    assert [bench.panes.summary(model).predictions for model in (MODEL, other)] == [64, 39]


def test_at_the_limit_a_pane_that_nobody_fills_any_more_closes_after_its_length() -> None:
    bench = Bench(windows=PENDING)
    for second in range(1, 11):
        bench.add(label(1, at_s=10 + second / 2, sender=f"sender-{second}", series=f"series-{second}"))
    assert bench.panes.close_panes(bench.clock.now_ns) == []
    bench.clock.now_ns += 10 * SECOND
    assert [window.end_ns - T0 for window in bench.panes.close_panes(bench.clock.now_ns)] == [20 * SECOND]
    assert bench.panes.pending_points == 0


def test_a_request_above_the_limit_is_taken_where_there_is_any_room_and_nothing_is_taken_in_part() -> None:
    bench = Bench(windows=PENDING)
    points = [label(1, at_s=at_s) for at_s in range(1, 10)]
    bench.add_request(points)
    bench.add_request(label(1, at_s=20 + at_s) for at_s in range(1, 30))
    assert bench.panes.pending_points == 38
    with pytest.raises(OverloadedError):
        bench.add_request(points)
    assert bench.panes.pending_points == 38
    assert bench.add_request([]) == {}  # a request without points finds room always


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(st.integers(0, 3), st.integers(0, 90)), min_size=1, max_size=8),
            st.integers(1, 40),
            st.just("restart"),
        ),
        max_size=25,
    )
)
def test_pending_points_are_bounded_by_the_limit_and_one_request_and_each_is_counted_once(
    steps: list[list[tuple[int, int]] | int | str],
) -> None:
    bench = Bench(windows=WindowSettings(pane_s=10.0, lateness_s=15.0, max_pending_points=12))
    bench.clock.now_ns += 100 * SECOND
    taken = set[tuple[int, int]]()
    directory = tempfile.TemporaryDirectory()
    store = SqliteRepository(Path(directory.name), synchronous="OFF")
    for step in steps:
        if isinstance(step, list):
            points = [
                label(1, at_s=at_s, since_s=at_s - 1, series=f"s{name}", sender=f"s{name}") for name, at_s in step
            ]
            room = bench.panes.pending_points < 12
            try:
                outcomes = bench.add_request(points)
            except OverloadedError:
                assert not room
            else:
                assert room
                taken |= set(step)
                assert set(outcomes) <= {"accepted", "late", "out_of_order", "duplicate", "overlap"}
            assert bench.panes.pending_points <= 12 + 7
        elif isinstance(step, int):
            bench.clock.now_ns += step * SECOND
            bench.panes.close_panes(bench.clock.now_ns)
        else:
            bench.panes.save(store)
            store.commit()
            bench.reload(store)
        waiting = [series.pending for series in bench.panes._state.series.values()]
        assert bench.panes.pending_points == sum(map(len, waiting))
    store.close()
    directory.cleanup()
    bench.flush()
    assert bench.panes.pending_points == 0
    counted = bench.panes.summary(MODEL).predictions if taken else 0
    assert counted == len(taken)
