"""What a series adds to each pane: temporality, resets, duplicates, order, lateness."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.processor.receive.data_point import DataPoint
from otel_mlmon.processor.window.consumption import consume_points
from otel_mlmon.processor.window.intake import CLOCK_SLACK_NS
from otel_mlmon.processor.window.pane_values import add_increments
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.series import (
    DELTA,
    MAX_CONSUMED_KEYS,
    MAX_COVERED,
    PendingPoints,
    SeriesKey,
    SeriesState,
    TimeSeries,
    join_intervals,
    list_streams,
)
from otel_mlmon.processor.window.window import WindowSettings
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.sketch.table import PointValue
from tests.support.observations import MODEL, SECOND, T0, Bench, Clock, durations, facts, label, numbers, point
from tests.support.plain_sketches import build_increments


def learned(bench: Bench) -> list[int]:
    """Values seen by the label stream, pane by pane."""
    bench.flush()
    return [window.learned for window in bench.out if window.stream.stream == semconv.STREAM_LABEL]


def cumulative(count: int, *, at_s: float, since_s: float = 1.0) -> DataPoint:
    return label(count, at_s=at_s, since_s=since_s, series="s", is_cumulative=True)


def test_deltas_pass() -> None:
    bench = Bench()
    assert [bench.add(label(3, at_s=at_s, since_s=at_s - 10)) for at_s in (10, 20)] == ["accepted"] * 2
    assert learned(bench) == [3, 6]


def test_a_first_total_that_began_after_us_is_kept_whole() -> None:
    bench = Bench()
    bench.add(cumulative(3, at_s=10))
    bench.add(cumulative(5, at_s=20))
    assert learned(bench) == [3, 5]


@pytest.mark.parametrize("since_s", [-3600.0, -T0 / SECOND, 10.0])
def test_a_first_total_of_older_or_unknown_start_is_only_a_base(since_s: float) -> None:
    bench = Bench()
    bench.add(cumulative(1000, at_s=10, since_s=since_s))
    bench.add(cumulative(1002, at_s=20, since_s=since_s))
    assert learned(bench) == [2]


def test_a_new_start_is_a_new_count() -> None:
    bench = Bench()
    assert bench.add(cumulative(5, at_s=10)) == "accepted"
    assert bench.add(cumulative(2, at_s=30, since_s=22)) == "reset"
    assert bench.add(cumulative(9, at_s=40, since_s=22)) == "accepted"
    assert learned(bench) == [5, 7, 14]


def test_workers_with_one_identity_and_other_starts_both_count() -> None:
    bench = Bench()
    for at_s in (10, 20):
        bench.add(cumulative(at_s, at_s=at_s, since_s=1))
        bench.add(cumulative(at_s * 4, at_s=at_s, since_s=2))
    assert learned(bench) == [50, 100]


def test_a_total_that_falls_was_reset() -> None:
    bench = Bench()
    for at_s, count in ((10, 5), (20, 8), (30, 2), (40, 3)):
        bench.add(cumulative(count, at_s=at_s, since_s=-T0 / SECOND))
    assert learned(bench) == [3, 5, 6]
    assert bench.panes.resets == 1


def test_other_bounds_begin_anew_and_only_say_where_counting_stands() -> None:
    bench = Bench()
    coarse = (0.1, 1.0)

    def total(at_s: float, n: int, bounds: tuple[float, ...]) -> DataPoint:
        sketch = durations(*[0.05] * n, bounds=bounds)
        return point(semconv.DURATION.name, sketch, at_s=at_s, since_s=1, is_cumulative=True)

    for added in (total(10, 4, coarse), total(20, 6, (0.2,)), total(30, 9, (0.2,))):
        bench.add(added)
    bench.flush()
    latency = [w.pane.tolist() for w in bench.out if w.stream.stream == "latency"]
    assert latency == [[4, 0], [0, 0], [3, 0]]
    assert bench.panes.resets == 1


def test_a_repeated_point_changes_nothing_now_or_later() -> None:
    bench = Bench()
    bench.add(label(3, at_s=10))
    assert bench.add(label(3, at_s=10)) == "duplicate"
    bench.flush()
    assert bench.add(label(3, at_s=10)) == "duplicate"
    assert learned(bench) == [3]
    assert bench.panes.counts == {"accepted": 1, "duplicate": 2}


def test_what_comes_for_a_closed_pane_is_late() -> None:
    bench = Bench()
    bench.add(label(3, at_s=10))
    bench.add(label(3, at_s=60))
    bench.out += bench.panes.close_panes(bench.clock.now_ns)
    assert bench.add(label(5, at_s=15)) == "late"
    assert bench.add(label(5, at_s=15, label="new")) == "late"
    assert learned(bench) == [3, 6]


def test_a_late_total_is_in_the_next_one() -> None:
    bench = Bench()
    bench.add(cumulative(3, at_s=10))
    bench.add(label(1, at_s=60))
    bench.out += bench.panes.close_panes(bench.clock.now_ns)
    assert bench.add(cumulative(5, at_s=15)) == "late"
    assert bench.add(cumulative(9, at_s=55)) == "accepted"
    assert learned(bench)[-1] == 8  # nothing is learned from what is late
    summary = bench.panes.summary(MODEL)
    assert (summary.predictions, summary.late_predictions) == (10, 2)


def test_a_total_out_of_order_goes_to_its_own_pane() -> None:
    bench = Bench()
    for at_s, count in ((10, 3), (30, 9)):
        bench.add(cumulative(count, at_s=at_s))
    assert bench.add(cumulative(5, at_s=20)) == "out_of_order"
    assert learned(bench) == [3, 5, 9]


def test_a_clock_in_the_future_counts_as_now() -> None:
    bench = Bench()
    bench.clock.now_ns = T0 + 5 * SECOND
    assert bench.panes.add(label(3, at_s=86_400)) == "accepted"
    assert bench.panes.clamped_points == 1
    bench.add(label(4, at_s=8))
    bench.flush()
    assert [(window.end_ns - T0, window.learned) for window in bench.out] == [(10 * SECOND, 7)]


def test_a_total_without_increase_makes_no_window() -> None:
    bench = Bench()
    for at_s in (10, 20, 30):
        bench.add(cumulative(7, at_s=at_s))
    assert learned(bench) == [7]


def test_the_last_eight_consumed_points_are_duplicates_when_repeated_and_older_ones_may_be() -> None:
    bench = Bench()
    points = [label(1, at_s=at_s) for at_s in range(1, 10)]
    for point_ in points:
        bench.add(point_)
    bench.flush()
    assert [bench.add(point_) for point_ in points] == ["overlap"] + ["duplicate"] * MAX_CONSUMED_KEYS


def test_another_value_for_the_time_of_a_point_is_of_another_writer_and_not_a_repeated_one() -> None:
    bench = Bench()
    for add in (label, cumulative):
        assert [bench.add(add(count, at_s=5)) for count in (3, 3, 4)] == ["accepted", "duplicate", "overlap"]
    bench.flush()
    assert bench.panes.counts["overlap"] == 2


@pytest.mark.parametrize(
    ("since_ns", "time_ns", "is_complete"),
    [
        (T0 - CLOCK_SLACK_NS, T0 + 10 * SECOND, True),
        (T0 - CLOCK_SLACK_NS - 1, T0 + 10 * SECOND, False),
        (T0 + SECOND, T0 + SECOND + 100 * SECOND, True),
        (T0 + SECOND, T0 + SECOND + 100 * SECOND + 1, False),
        (T0 + SECOND, T0 + SECOND + 1, True),
        (T0 + SECOND, T0 + SECOND, False),
    ],
)
def test_a_first_total_counts_from_the_start_of_the_processor_on_and_while_series_are_remembered(
    since_ns: int, time_ns: int, is_complete: bool
) -> None:
    bench = Bench(windows=WindowSettings(stale_after_s=100))
    total = cumulative(7, at_s=0)._replace(start_ns=since_ns, time_ns=time_ns)
    assert bench.add(total) == ("accepted" if is_complete else "starting_point")
    assert learned(bench) == ([7] if is_complete else [])


def test_an_unknown_start_is_no_start_even_when_the_processor_is_as_old_as_the_clock() -> None:
    bench = Bench(clock=Clock(0), windows=WindowSettings(lateness_s=0))
    assert bench.add(cumulative(7, at_s=0)._replace(start_ns=0, time_ns=SECOND)) == "starting_point"
    assert learned(bench) == []
    bench = Bench(clock=Clock(0), windows=WindowSettings(lateness_s=0))
    assert bench.add(cumulative(7, at_s=0)._replace(start_ns=1, time_ns=SECOND)) == "accepted"
    assert learned(bench) == [7]


def test_points_of_one_time_are_consumed_in_the_order_of_their_start() -> None:
    series = series_of(DELTA)
    for key in ((3, 20), (1, 20), (2, 10), (0, 30)):
        add_pending(series, key, 1, pane_end_ns=key[1])
    due = [points for points in series.pending.values() if points.pane_end_ns <= 20]
    consumed = tuple(points.key for points in consume_points(due, is_complete=lambda *_: True).groups)
    assert consumed == series.state.counted.keys == ((2, 10), (1, 20), (3, 20))
    assert list(series.pending) == [(0, 30)]
    repetitions = [series.find_repetition(key, PointValue(1)) for key in ((1, 20), (5, 20), (0, 30))]
    assert repetitions == ["duplicate", None, "duplicate"]
    assert series.find_repetition((0, 30), PointValue(2)) == "overlap"


def test_a_total_of_an_earlier_time_adds_what_it_exceeds_the_last_one_by() -> None:
    series = series_of(1)
    totals = ((10, 4), (20, 9), (12, 9), (13, 7), (14, 11), (21, 12), (22, 3), (15, 2))
    increments = []
    for time_ns, count in totals:
        add_pending(series, (1, time_ns), count)
        increments += consume(series)
    assert [increment and increment.total for increment in increments] == [4, 5, None, None, 2, 1, None, None]
    assert (series.state.total, series.state.total_ns, series.resets) == (PointValue(counter=12), 21, 0)


def test_a_total_of_unknown_start_that_falls_was_reset_if_its_time_and_its_arrival_are_later() -> None:
    series = series_of(0)
    increments = []
    for time_ns, received_ns, count in ((10, 10, 4), (20, 20, 9), (15, 30, 2), (25, 15, 7), (30, 40, 3)):
        add_pending(series, (0, time_ns), count, received_ns=received_ns)
        increments += consume(series)
    assert [increment and increment.total for increment in increments] == [4, 5, None, None, 3]
    assert series.resets == 1


@settings(deadline=None, max_examples=100)
@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=8),
    clock=st.lists(st.integers(1, 90), min_size=8, max_size=8, unique=True),
    order=st.randoms(use_true_random=False),
    closes=st.sets(st.integers(0, 7)),
)
def test_totals_of_a_known_start_add_up_to_the_largest_whatever_the_clock_and_the_order_of_arrival(
    counts: list[int], clock: list[int], order: Any, closes: set[int]
) -> None:
    totals = [sum(counts[: number + 1]) for number in range(len(counts))]
    arrivals = list(zip(totals, clock, strict=False))
    order.shuffle(arrivals)
    series = series_of(1)
    increments: list[PointValue | None] = []
    for number, (total, time_ns) in enumerate(arrivals):
        add_pending(series, (1, time_ns), total, received_ns=number)
        if number in closes:
            increments += consume(series)
    expected = sum(increment.total for increment in increments if increment is not None)
    expected += series.count_pending_values(is_complete=lambda *_: True)
    increments += consume(series)
    counted = sum(increment.total for increment in increments if increment is not None)
    assert counted == expected == max(totals)
    assert (series.state.total, series.resets) == (PointValue(counter=max(totals)), 0)


@pytest.mark.parametrize(
    ("key", "outcome"),
    [
        ((10, 20), "overlap"),
        ((12, 18), "overlap"),
        ((30, 40), "overlap"),
        ((31, 60), "overlap"),
        ((5, 9), None),
        ((9, 12), None),
        ((20, 30), None),
        ((12, 35), None),
    ],
)
def test_an_old_delta_is_a_repeated_one_only_where_its_time_is_counted(
    key: tuple[int, int], outcome: str | None
) -> None:
    series = series_of(DELTA)
    for end_ns in (10, 20, 40, *range(50, 200, 10)):
        add_pending(series, (end_ns - 10, end_ns), 1, pane_end_ns=end_ns)
    consume(series)
    assert series.state.counted.covered == ((10, 20), (30, 190))
    assert series.find_repetition(key, PointValue(1)) == outcome


@given(batches=st.lists(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9)), min_size=1), max_size=9))
def test_covered_time_is_sorted_disjoint_bounded_and_holds_every_interval(batches: list[list[tuple[int, int]]]) -> None:
    covered: tuple[tuple[int, int], ...] = ()
    for batch in batches:
        intervals = [(2 * start_ns, 2 * (start_ns + length_ns)) for start_ns, length_ns in batch]
        before, covered = covered, join_intervals(covered, intervals)
        ticks = {tick for first, last in (*before, *intervals) for tick in range(first, last + 1)}
        found = {tick for first, last in covered for tick in range(first, last + 1)}
        assert found >= ticks
        assert found == ticks or len(covered) == MAX_COVERED
        assert len(covered) <= MAX_COVERED
        assert all(one[1] < other[0] for one, other in pairwise(covered))


def test_of_too_many_intervals_of_covered_time_the_oldest_gaps_count_as_covered() -> None:
    intervals = [(10 * number, 10 * number + 5) for number in range(MAX_COVERED + 3)]
    expected = ((0, 35), *intervals[4:])
    assert join_intervals((), intervals) == expected
    one_by_one: tuple[tuple[int, int], ...] = ()
    for interval in intervals:
        one_by_one = join_intervals(one_by_one, [interval])
    assert one_by_one == expected
    assert join_intervals(expected, [(7, 8)]) == expected
    assert join_intervals(expected, [(47, 48)]) == ((0, 45), (47, 48), *intervals[5:])


def consume(series: TimeSeries) -> list[PointValue | None]:
    """The increments of all points that are pending, None of those that add nothing."""
    consumed = consume_points([*series.pending.values()], is_complete=lambda *_: True)
    found = {id(part.points): PointValue.from_number(part.table, part.numbers[0]) for part in consumed.increments}
    return [found.get(id(points)) for points in consumed.groups]


def add_pending(
    series: TimeSeries, key: tuple[int, int], count: int, *, received_ns: int = 0, pane_end_ns: int = 100
) -> None:
    """Adds a pending point that came alone."""
    is_cumulative = series.state.key.start_ns != DELTA
    points = PendingPoints(
        request=1, sender="", key=key, is_cumulative=is_cumulative, pane_end_ns=pane_end_ns, time_ns=key[1],
        received_ns=received_ns, series=[], table=None, numbers=[],
    )  # fmt: skip
    points.add(series, count)


def test_the_value_of_a_point_is_found_without_a_look_at_all_others_that_came_with_it() -> None:
    looks = 0

    class WatchedSeries(TimeSeries):
        def __hash__(self) -> int:
            nonlocal looks
            looks += 1
            return id(self)

    points = PendingPoints(
        request=1, sender="", key=(1, 2), is_cumulative=False, pane_end_ns=100, time_ns=2, received_ns=0, series=[],
        table=None, numbers=[],
    )  # fmt: skip
    for number in range(200):
        series = WatchedSeries(series_of(DELTA).state)
        points.add(series, number)
        assert points.find_value(series) == PointValue(counter=number)
    assert [points.find_value(series).counter for series in points.series] == list(range(200))
    assert looks <= 4 * 200


def series_of(start_ns: int) -> TimeSeries:
    state = SeriesState(
        key=SeriesKey("s", start_ns), sender="", model=MODEL, metric="m", name="", category="", updated_ns=0
    )
    return TimeSeries(state)


FORMS = {
    "counter": PointValue(counter=3),
    "no counts": PointValue(counter=0),
    "explicit": PointValue.from_sketch(durations(0.1, 0.2, bounds=(0.15,))),
    "other bounds": PointValue.from_sketch(durations(0.1, 0.2, bounds=(0.16,))),
    "exponential": PointValue.from_sketch(numbers(1.0, 2.0)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_total_can_be_subtracted_from_one_of_its_form_only(form: str) -> None:
    same = {"counter", "no counts"} if form in ("counter", "no counts") else {form}
    assert {name for name, other in FORMS.items() if FORMS[form].has_same_form(other)} == same
    if FORMS[form].counter is None:
        assert FORMS[form].subtract(FORMS["counter"]) is FORMS["counter"].subtract(FORMS[form]) is None
    difference = FORMS[form].subtract(FORMS[form])
    assert difference is not None
    assert (difference.total, difference.has_same_form(FORMS[form])) == (0, True)


def test_the_total_of_a_value_is_how_many_values_it_counts() -> None:
    assert [value.total for value in FORMS.values()] == [3, 0, 2, 2, 2]
    assert PointValue().total == 0


@pytest.mark.parametrize(
    ("earlier", "later", "difference"),
    [(3, 5, 2), (3, 3, 0), (3, 2, None)],
)
def test_a_counter_that_falls_was_reset(earlier: int, later: int, difference: int | None) -> None:
    expected = None if difference is None else PointValue(counter=difference)
    assert PointValue(counter=later).subtract(PointValue(counter=earlier)) == expected


def test_histograms_that_fall_were_reset() -> None:
    assert PointValue.from_sketch(durations(0.1)).subtract(PointValue.from_sketch(durations(0.1, 0.1))) is None
    assert PointValue.from_sketch(numbers(1.0)).subtract(PointValue.from_sketch(numbers(1.0, 1.0))) is None


def test_the_streams_of_each_metric() -> None:
    assert {metric.name: list_streams(metric.name, "x") for metric in semconv.APPLICATION_METRICS} == {
        **{metric.name: () for metric in semconv.APPLICATION_METRICS},
        "ml.predictions": ("prediction.label",),
        "ml.prediction.confidence": ("prediction.confidence.x",),
        "ml.prediction.value": ("prediction.value.x",),
        "ml.output.item.confidence": ("output.x.confidence",),
        "ml.inference.duration": ("latency", "errors"),
        "ml.input.feature": ("input.x",),
        "ml.input.missing": ("input.x",),
        "ml.input.category": ("input.x",),
    }


def test_the_streams_of_several_heads_and_of_an_only_one() -> None:
    assert list_streams("ml.predictions", "red", "color") == ("prediction.label.color",)
    assert list_streams("ml.predictions", "red", "") == ("prediction.label",)
    assert list_streams("ml.prediction.confidence", "") == ("prediction.confidence",)
    assert list_streams("ml.prediction.value", "") == ("prediction.value",)


def sketch(metric: str, name: str, category: str, value: PointValue) -> dict[str, StreamSketch]:
    """The sketches of one increment."""
    state = SeriesState(
        key=SeriesKey("s", 0), sender="", model=MODEL, metric=metric, name=name, category=category, updated_ns=0
    )
    return add_increments(MODEL, [build_increments(TimeSeries(state), value)]).build_all_sketches()


def test_an_increment_is_a_sketch_for_each_stream_of_its_metric() -> None:
    calls, classes = durations(0.1, 0.2), CategoryCounts(counts={"ok": 2})
    explicit = StreamSketch(explicit={calls.bounds: calls})
    value = PointValue.from_sketch(calls)
    assert sketch("ml.inference.duration", "", "", value) == {
        "latency": explicit,
        "errors": StreamSketch(categories=classes),
    }
    failed = sketch("ml.inference.duration", "ValueError", "", value)["errors"]
    assert failed == StreamSketch(categories=CategoryCounts(counts={"failed": 2}))
    assert sketch("ml.input.feature", "age", "", value) == {"input.age": explicit}
    assert sketch("ml.input.feature", "age", "", PointValue.from_sketch(numbers(1.0))) == {
        "input.age": StreamSketch(exponential=numbers(1.0))
    }
    count = PointValue(counter=3)
    assert sketch("ml.input.missing", "age", "", count) == {"input.age": StreamSketch(missing=3)}
    by_label = sketch("ml.predictions", "cat", "animal", count)
    assert by_label == {"prediction.label.animal": StreamSketch(categories=CategoryCounts(counts={"cat": 3}))}
    by_value = sketch("ml.input.category", "city", "Bern", count)
    assert by_value == {"input.city": StreamSketch(categories=CategoryCounts(counts={"Bern": 3}))}
    assert sketch("ml.predictions", "cat", "", PointValue(counter=0)) == {}
    assert sketch("ml.inference.duration", "", "", PointValue.from_sketch(durations())) == {}


INCREMENTS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    increments=INCREMENTS,
    times=st.integers(1, 3),
    order=st.randoms(use_true_random=False),
    is_cumulative=st.booleans(),
    at_once=st.booleans(),
)
def test_order_batches_and_repetition_change_nothing(
    increments: list[int], times: int, order: Any, is_cumulative: bool, at_once: bool
) -> None:
    points = written(increments, is_cumulative=is_cumulative)
    straight, shuffled = patient(), patient()
    for added in points:
        straight.add(added)
    again = points * times
    order.shuffle(again)
    for added in again:
        shuffled.add(added)
        if not at_once:
            shuffled.out += shuffled.panes.close_panes(shuffled.clock.now_ns)
    straight.flush()
    shuffled.flush()
    assert facts(shuffled.out) == facts(straight.out)


@settings(deadline=None, max_examples=60)
@given(increments=INCREMENTS)
def test_deltas_and_totals_are_the_same(increments: list[int]) -> None:
    delta, total = patient(), patient()
    for added in written(increments, is_cumulative=False):
        delta.add(added)
    for added in written(increments, is_cumulative=True):
        total.add(added)
    delta.flush()
    total.flush()
    assert facts(total.out) == facts(delta.out)


def patient() -> Bench:
    """Panes that wait longer than any point here takes."""
    return Bench(
        settings=ModelWindowSettings(learn=10),
        windows=WindowSettings(pane_s=10.0, lateness_s=1000.0, rolling_s=40.0),
    )


def written(increments: list[int], *, is_cumulative: bool) -> list[DataPoint]:
    """Every 7 s the metrics of one writer grow by an increment; a total is never in finer buckets than its parts."""
    points: list[DataPoint] = []
    for step, _ in enumerate(increments):
        counted = increments[: step + 1] if is_cumulative else increments[step : step + 1]
        when: dict[str, Any] = {
            "at_s": 7.0 * (step + 1) + 1,
            "since_s": 1.0 if is_cumulative else 7.0 * step + 1,
            "is_cumulative": is_cumulative,
        }
        number = sum(counted)
        points += [
            label(number, **when),
            point(semconv.DURATION.name, durations(*[0.03 * n for n in counted for _ in range(n)]), **when),
            point(
                semconv.FEATURE.name,
                numbers(*[1.0 + n / 16 for n in counted for _ in range(n)]).at_scale(4),
                key="age",
                **when,
            ),
            point(semconv.MISSING_VALUES.name, sum(n // 2 for n in counted), key="age", **when),
        ]
    return points
