"""What is packed is unpacked bit for bit, and what contradicts itself is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.receive.data_point import TraceExemplar
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.packing import (
    PackedSums,
    PackedValues,
    PointsRecord,
    SeriesRecord,
    pack_ints,
    pack_points,
    pack_series,
    pack_sums,
    pack_values,
    unpack_ints,
    unpack_points,
    unpack_series,
    unpack_sums,
    unpack_values,
)
from otel_mlmon.processor.window.series import CountedTimes, PendingPoints, SeriesKey, SeriesState, TimeSeries
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import convert_to_exact_units
from otel_mlmon.sketch.table import PointValue, SketchTable
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=8).map(np.array)
BOUNDS = st.sampled_from([(), (0.0,), (-1.0, 2.0, 1e9)])
SKETCHES = st.one_of(
    st.builds(lambda numbers, bounds: Histogram.from_values(numbers.astype(float), bounds), NUMBERS, BOUNDS),
    NUMBERS.map(lambda numbers: ExponentialHistogram.from_values(numbers.astype(float))),
)
VALUES = st.one_of(
    st.integers(0, 2**53).map(lambda count: PointValue(counter=count)), SKETCHES.map(PointValue.from_sketch)
)
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


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6))
def test_values_are_unpacked_as_they_were(values: list[PointValue]) -> None:
    packed = decode_record(encode_record(pack_values(values)), PackedValues)
    assert list(unpack_values(packed)) == values


@st.composite
def draw_points(draw: st.DrawFn) -> PendingPoints:
    points = PendingPoints(
        request=7, sender="s", key=draw(KEYS), is_cumulative=draw(st.booleans()), pane_end_ns=draw(TIMES),
        time_ns=draw(TIMES), received_ns=draw(TIMES), series=[], table=None, numbers=[],
    )  # fmt: skip
    states = draw(st.lists(STATES, max_size=4, unique_by=lambda state: state.key))
    sketches = draw(st.none() | st.lists(SKETCHES, min_size=len(states), max_size=len(states)))
    if sketches is not None:
        points.table = SketchTable.from_sketches(sketches)
    for row, state in enumerate(states):
        points.add(TimeSeries(state), row if points.table else draw(st.integers(0, 2**53)), draw(EXEMPLARS))
    return points


@settings(deadline=None)
@given(st.lists(draw_points(), max_size=3))
def test_points_of_a_request_are_unpacked_as_they_were(groups: list[PendingPoints]) -> None:
    record = decode_record(encode_record(pack_points(7, MODEL, groups)), PointsRecord)
    assert list(unpack_points(record)) == [
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
    assert unpacked.exemplars == (TraceExemplar("ab", 0.0),)


@settings(deadline=None)
@given(st.lists(STATES, max_size=5))
def test_the_series_of_a_sender_are_unpacked_as_they_were(states: list[SeriesState]) -> None:
    record = decode_record(encode_record(pack_series(MODEL, "s", states)), SeriesRecord)
    assert list(unpack_series(record, [state.identity for state in states])) == states


@given(st.lists(st.integers(0, 2**63 - 1), max_size=9))
def test_numbers_take_the_narrowest_type_that_holds_them(numbers: list[int]) -> None:
    width, blob = packed = pack_ints(np.array(numbers, dtype=np.int64))
    assert unpack_ints(packed).tolist() == numbers
    bits = max(numbers, default=0).bit_length()
    assert len(blob) == len(numbers) * next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    assert width in ("|u1", "<u2", "<u4", "<i8")


SUMS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False).map(convert_to_exact_units),
    st.tuples(st.integers(-(2**60), 2**60), st.sampled_from([0, 1_000, 2_000])).map(lambda sum_: sum_[0] << sum_[1]),
)


@given(st.lists(SUMS, max_size=6))
@example([2**63, 0])
@example([-(2**63)])
@example([1, 2**4000])
def test_sums_are_unpacked_as_they_were(sums: list[int]) -> None:
    packed = decode_record(encode_record(pack_sums(sums)), PackedSums)
    assert unpack_sums(packed, len(sums)) == sums
    assert len(packed.numbers) == len(sums) * packed.width


@pytest.mark.parametrize(
    "packed",
    [
        PackedSums((0,), 8, bytes(9)),
        PackedSums((0,), 0, b""),
        PackedSums((0, 0, 0), 8, bytes(16)),
        PackedSums((4097,), 8, bytes(16)),
        PackedSums((0, -1), 8, bytes(16)),
    ],
)
def test_sums_that_contradict_each_other_are_refused(packed: PackedSums) -> None:
    with pytest.raises(ValueError, match="sum"):
        unpack_sums(packed, 2)


def test_sums_of_a_like_size_take_a_few_bytes_each() -> None:
    sums = [convert_to_exact_units(value) for value in (1.5, -3e9, 0.1, 1e-6)]
    assert pack_sums(sums).width == 14
    assert pack_sums([*sums, convert_to_exact_units(1e-300)]).width == 7 + 1
    assert pack_sums([convert_to_exact_units(float(value)) for value in range(-50, 50)])[:2] == ((1074,), 8)


@pytest.mark.parametrize(
    "fields",
    [
        {"sums": PackedSums((0,), 8, b"")},
        {"sizes": [3]},
        {"sizes": [-2, 4]},
        {"sizes": [2, 1], "counts": pack_ints(np.array([1, 1, 1]))},
        {"kinds": bytes([2, 2])},
        {"kinds": bytes([1])},
        {"kinds": bytes([0, 2])},
        {"firsts": []},
        {"steps": pack_ints(np.array([1, 1, 1]))},
        {"counts": ("<f8", b"")},
        {"scales": []},
    ],
)
def test_values_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    values = [PointValue.from_sketch(ExponentialHistogram.from_values(np.array([1.0, 3.0])))]
    with pytest.raises(ValueError, match=r"."):
        list(unpack_values(pack_values(values)._replace(**fields)))


def test_series_without_the_progress_they_name_are_refused() -> None:
    state = SeriesState(key=SeriesKey("a", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=1)
    with pytest.raises(ValueError, match="progress that is not there"):
        list(unpack_series(pack_series(MODEL, "s", [state])._replace(progress_numbers=[1]), [state.identity]))


def test_series_without_their_identities_are_refused() -> None:
    state = SeriesState(key=SeriesKey("a", 0), sender="s", model=MODEL, metric="m", name="", category="", updated_ns=1)
    with pytest.raises(ValueError, match="0 identities for 1 series"):
        list(unpack_series(pack_series(MODEL, "s", [state]), []))
