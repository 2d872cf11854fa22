"""The fields of histograms are the same whether points are read one by one or all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.receive.histogram_fields import FEW_POINTS, HistogramFields, find_header, read_fields
from tests.processor.receive.test_encoded import BODY, EDITS, FIELDS, POINTS, build_point, edit, reading

ANY_POINT = st.one_of(
    POINTS.map(lambda fields: build_point(fields).SerializeToString()),
    EDITS.map(lambda edits: edit(BODY, edits)),
    st.lists(FIELDS, max_size=12).map(b"".join),
)


def read(points: list[bytes]) -> HistogramFields:
    headers = [find_header(point) for point in points]
    positions = [len(point) if header is None else header for point, header in zip(points, headers, strict=True)]
    return read_fields(points, np.array(positions))


def list_rows(fields: HistogramFields) -> list[str | None]:
    """Each histogram as text, in which not a number is equal to itself; None for one that is not read."""
    rows: list[str | None] = []
    for row, is_read in enumerate(fields.is_read.tolist()):
        integers = [column[row] for column in (fields.start_ns, fields.time_ns, fields.counts, fields.scales)]
        floats = [float(column[row]) for column in (fields.sums, fields.minima, fields.maxima)]
        zeros = 0 if fields.zero_counts is None else int(fields.zero_counts[row])
        buckets = []
        for places in (fields.above, fields.below):
            start, size, offset = (0, 0, 0) if places is None else (int(column[row]) for column in places)
            buckets.append((fields.data[start : start + size].tobytes(), offset if size else None))
        rows.append(repr((integers, floats, zeros, buckets)) if is_read else None)
    return rows


@settings(deadline=None, max_examples=300)
@given(points=st.lists(ANY_POINT, min_size=1, max_size=6))
def test_points_are_read_alike_one_by_one_and_all_at_once(points: list[bytes]) -> None:
    with reading("one by one"):
        expected = list_rows(read(points))
    with reading("all at once"):
        assert list_rows(read(points)) == expected


@pytest.mark.parametrize("count", [1, FEW_POINTS - 1, FEW_POINTS, 3 * FEW_POINTS])
def test_a_histogram_has_the_fields_that_were_sent(count: int) -> None:
    row = repr(([1, 2, 7, 3], [1.5, -2.0, 8.0], 1, [(b"\1\0\2", -7), (b"\3", 300)]))
    assert list_rows(read([BODY] * count)) == [row] * count


@pytest.mark.parametrize("way", ["one by one", "all at once"])
@pytest.mark.parametrize(
    "point", [b"", b"\x0a", b"\x0a\x80", b"\x0a\xff\xff", BODY[:26], BODY[:40], BODY[:-1], b"\x11" * 36]
)
def test_points_that_end_too_early_are_not_read(point: bytes, way: str) -> None:
    with reading(way):
        assert read([point, BODY, point]).is_read.tolist() == [False, True, False]


def test_the_header_is_behind_the_attributes() -> None:
    assert find_header(BODY) == 26
    assert BODY[26] == 0x11
    assert find_header(b"\x0a\x03abc" + b"\x0a\x82\x01" + b"d" * 130 + b"\x11") == 138
    assert find_header(b"\x0a\x03abc\x19") is None
