"""What is packed is unpacked bit for bit, and what contradicts itself is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.receive.data_point import TraceExemplar
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.packing import (
    PointsRecord,
    SeriesRecord,
    pack_points,
    pack_series,
    unpack_points,
    unpack_series,
)
from otel_mlmon.processor.window.series import CountedTimes, PendingPoints, SeriesKey, SeriesState, TimeSeries
from otel_mlmon.sketch.table import PointValue, SketchTable
from otel_mlmon.types import ModelKey
from tests.processor.window.test_packed_values import SKETCHES, VALUES
from tests.support.observations import MODEL

TIMES = st.integers(0, 2**62)
KEYS = st.tuples(TIMES, TIMES)
EXEMPLARS = st.lists(
    st.builds(TraceExemplar, st.sampled_from(["ab", "cd"]), st.floats(min_value=0.0, allow_infinity=False)), max_size=2
).map(tuple)
STATES = st.builds(
    SeriesState,
    key=st.builds(SeriesKey, st.text(max_size=3), st.integers(-1, 3)),
    sender=st.just("s"),
    model=st.just(MODEL),
    metric=st.sampled_from(["ml.predictions", "ml.input.feature"]),
    name=st.text(max_size=2),
    category=st.text(max_size=2),
    updated_ns=st.integers(0, 2),
    newest_ns=st.integers(0, 2),
    total=st.none() | VALUES,
    total_ns=st.integers(0, 2),
    total_received_ns=st.integers(0, 2),
    counted=st.builds(CountedTimes, st.lists(KEYS, max_size=2).map(tuple), st.lists(KEYS, max_size=2).map(tuple)),
)


@st.composite
def draw_points(draw: st.DrawFn) -> PendingPoints:
    points = PendingPoints(
        request=7, sender="s", key=draw(KEYS), is_cumulative=draw(st.booleans()), pane_end_ns=draw(TIMES),
        time_ns=draw(TIMES), received_ns=draw(TIMES), series=[], table=None, numbers=[],
    )  # fmt: skip
    # Points of one time are of series of one start.
    start_ns, names = draw(TIMES), draw(st.sampled_from([st.sampled_from("abcdé"), HEX_NAMES]))
    keys = draw(st.lists(names.map(lambda name: SeriesKey(name, start_ns)), max_size=4, unique=True))
    states = [replace(draw(STATES), key=key) for key in keys]
    sketches = draw(st.none() | st.lists(SKETCHES, min_size=len(states), max_size=len(states)))
    if sketches is not None:
        points.table = SketchTable.from_sketches(sketches)
    for row, state in enumerate(states):
        points.add(TimeSeries(state), row if points.table else draw(st.integers(0, 2**53)), draw(EXEMPLARS))
    return points


def list_points(record: PointsRecord) -> list[tuple[Any, ...]]:
    """The series, times, value and exemplars of each data point of a record."""
    return [
        (series, *points.run[:4], PointValue.from_number(points.table, number), points.exemplars.get(position, ()))
        for points in unpack_points(record)
        for position, (series, number) in enumerate(zip(points.series, points.numbers, strict=True))
    ]


HEX_NAMES = st.one_of(
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.binary(min_size=15, max_size=15).map(lambda name: f"{name.hex()} 1"),  # which is read as hex digits too
    st.binary(min_size=16, max_size=16).map(lambda name: name.hex().upper()),
)


@settings(deadline=None)
@given(st.lists(draw_points(), max_size=3))
def test_points_of_a_request_are_unpacked_as_they_were(groups: list[PendingPoints]) -> None:
    record = decode_record(encode_record(pack_points(7, MODEL, groups)), PointsRecord)
    assert list_points(record) == [
        (
            series.state.key,
            points.key,
            points.pane_end_ns,
            points.time_ns,
            points.received_ns,
            points.find_value(series),
            points.exemplars.get(position, ()),
        )
        for points in groups
        for position, series in enumerate(points.series)
    ]


def test_a_trace_that_was_stored_without_its_value_is_of_no_slow_call() -> None:
    points = PendingPoints(
        request=7, sender="s", key=(0, 0), is_cumulative=False, pane_end_ns=0, time_ns=0, received_ns=0,
        series=[], table=None, numbers=[],
    )  # fmt: skip
    state = SeriesState(key=SeriesKey("s", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=0)
    points.add(TimeSeries(state), 1, (TraceExemplar("ab", 0.5),))
    record = pack_points(7, ModelKey("m", "1", ""), [points])
    assert record.exemplars == {0: ("ab:0.5",)}
    (unpacked,) = unpack_points(record._replace(exemplars={0: ("ab",)}))
    assert unpacked.exemplars == {0: (TraceExemplar("ab", 0.0),)}


@settings(deadline=None)
@given(st.lists(STATES, max_size=5))
def test_the_series_of_a_sender_are_unpacked_as_they_were(states: list[SeriesState]) -> None:
    record = decode_record(encode_record(pack_series(MODEL, "s", states)), SeriesRecord)
    assert list(unpack_series(record, [state.identity for state in states])) == states


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], b"", bytes(17)])
def test_points_of_more_or_fewer_series_are_refused(names: list[str] | bytes) -> None:
    points = PendingPoints(
        request=7, sender="s", key=(0, 0), is_cumulative=False, pane_end_ns=0, time_ns=0, received_ns=0,
        series=[], table=None, numbers=[],
    )  # fmt: skip
    for name in "ab":
        state = SeriesState(
            key=SeriesKey(name, 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=0
        )
        points.add(TimeSeries(state), 1)
    record = pack_points(7, MODEL, [points])
    with pytest.raises(ValueError, match="series"):
        list(unpack_points(record._replace(runs=[record.runs[0]._replace(series=names)])))
    with pytest.raises(ValueError, match="series"):
        list(unpack_points(record._replace(runs=[])))


def test_series_without_the_progress_they_name_are_refused() -> None:
    state = SeriesState(key=SeriesKey("a", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=1)
    with pytest.raises(ValueError, match="progress that is not there"):
        list(unpack_series(pack_series(MODEL, "s", [state])._replace(progress_numbers=[1]), [state.identity]))


def test_series_without_their_identities_are_refused() -> None:
    state = SeriesState(key=SeriesKey("a", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=1)
    with pytest.raises(ValueError, match="0 identities for 1 series"):
        list(unpack_series(pack_series(MODEL, "s", [state]), []))
