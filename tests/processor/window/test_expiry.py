"""What has ended makes room: series of senders, versions, streams; and what comes back is not counted twice."""

from __future__ import annotations

import tracemalloc

import pytest

from otel_mlmon import semconv
from otel_mlmon.processor.window.expiry import ENDED_AFTER_NS, MIN_SILENT_PANES
from otel_mlmon.processor.window.window import WindowSettings
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL, SECOND, Bench, label, numbers, point

WINDOWS = WindowSettings(pane_s=10.0, lateness_s=0.0, rolling_s=60.0)


def advance(bench: Bench, seconds: float) -> None:
    bench.clock.now_ns += round(seconds * SECOND)
    bench.panes.close_panes(bench.clock.now_ns)


def test_series_of_a_sender_that_ended_are_removed_within_the_hour_and_those_of_others_stay() -> None:
    bench = Bench(windows=WINDOWS)
    bench.add(label(1, at_s=5, sender="ends", series="ends"))
    for minute in range(1, 60):
        bench.add(label(1, at_s=60 * minute, sender="goes on", series="goes on"))
        advance(bench, 1)
    assert bench.panes.series_count == 1
    assert (
        bench.panes.add(label(1, at_s=5, sender="ends", series="ends")) == "overlap"
    )  # counted, and not known any more
    assert bench.panes.add(label(1, at_s=3500, sender="ends", series="ends")) == "late"


def test_totals_of_a_sender_that_comes_back_go_on_from_where_they_are() -> None:
    bench = Bench(windows=WINDOWS)
    bench.add(label(100, at_s=10, since_s=1, sender="s", series="s", is_cumulative=True))
    advance(bench, 30)
    advance(bench, ENDED_AFTER_NS / SECOND + 120)
    assert bench.panes.series_count == 0
    outcomes = [
        bench.add(label(count, at_s=at_s, since_s=1, sender="s", series="s", is_cumulative=True))
        for at_s, count in ((3000, 150), (3010, 160))
    ]
    assert outcomes == ["starting_point", "accepted"]
    assert bench.add(label(7, at_s=3010, since_s=3000, sender="s", series="new", is_cumulative=True)) == "accepted"
    assert bench.panes.summary(MODEL).predictions == 100 + 10 + 7


def test_series_of_silent_senders_make_room_where_there_is_none() -> None:
    bench = Bench(windows=WINDOWS, max_series=10)
    for number in range(10):
        bench.add(label(1, at_s=5, sender="old", series=f"old {number}"))
    advance(bench, 20)
    assert bench.add(label(1, at_s=30, sender="new", series="new")) == "too_many_series"
    advance(bench, 310)
    assert bench.add(label(1, at_s=330, sender="new", series="new")) == "accepted"
    assert bench.panes.series_count == 1


def test_a_version_is_removed_when_another_one_replaced_it_and_not_while_it_is_the_only_one() -> None:
    bench = Bench(windows=WindowSettings(pane_s=10, lateness_s=0, stale_after_s=600))
    old, new = ModelKey("digits", "1"), ModelKey("digits", "2")
    bench.add(label(1, at_s=5, model=old))
    advance(bench, 1000)
    assert bench.panes.models == [old]
    bench.add(label(1, at_s=1010, model=new))
    advance(bench, 100)
    assert bench.panes.models == [new]
    assert bench.panes.pop_removed_streams() == [(old, semconv.STREAM_LABEL)]


@pytest.mark.parametrize(("panes", "is_removed"), [(MIN_SILENT_PANES + 70, True), (MIN_SILENT_PANES - 10, False)])
def test_a_stream_of_a_model_that_goes_on_is_removed_when_it_is_stale(panes: int, is_removed: bool) -> None:
    bench = Bench(windows=WindowSettings(pane_s=10, lateness_s=0, stale_after_s=300))
    bench.add(point(semconv.FEATURE.name, numbers(1.0), at_s=5, key="gone"))
    for step in range(1, panes):
        bench.add(label(1, at_s=10 * step))
        advance(bench, 1)
    streams = [stream.stream for stream in bench.panes.summary(MODEL).streams]
    assert streams == ([semconv.STREAM_LABEL] if is_removed else ["input.gone", semconv.STREAM_LABEL])


def test_what_finds_no_room_is_shown_as_a_stream_that_is_not_judged() -> None:
    bench = Bench(max_streams=1, max_models=2)
    assert bench.add(label(1, at_s=5)) == "accepted"
    other = ModelKey("digits", "2")
    assert [bench.add(label(1, at_s=5, model=other)) for _ in range(3)] == ["too_many_streams"] * 3
    (stream,) = bench.panes.summary(other).streams
    assert (stream.stream, stream.current_count, stream.fault) == (
        "overflow", 3, "3 points of this model found no room and were rejected: see `limits` in the configuration",
    )  # fmt: skip
    assert bench.add(label(1, at_s=5, model=ModelKey("third"))) == "too_many_models"
    assert bench.panes.models == [MODEL, other]


def test_senders_with_new_instance_ids_each_minute_need_no_more_memory_in_the_end() -> None:
    bench = Bench(windows=WindowSettings(pane_s=10, lateness_s=0, rolling_s=60, stale_after_s=3600))

    def run(minutes: int) -> int:
        for _ in range(minutes):
            at_s = (bench.clock.now_ns - 1_700_000_000 * SECOND) / SECOND + 60
            bench.add(label(1, at_s=at_s, since_s=at_s - 5, sender=f"s{at_s}", series=f"s{at_s}", is_cumulative=True))
            bench.panes.close_panes(bench.clock.now_ns)
            bench.panes._state.changes.panes.clear()
        return tracemalloc.get_traced_memory()[0]

    run(150)
    tracemalloc.start()
    try:
        before, after = run(150), run(450)
    finally:
        tracemalloc.stop()
    assert (bench.panes.series_count <= 32, len(bench.panes._state.ended) <= 62) == (True, True)
    assert after - before < 100_000
