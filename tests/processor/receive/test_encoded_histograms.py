"""The histograms that exporters send are read from their bytes into one table, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon import semconv
from otel_mlmon.processor.receive.encoded_histograms import read_histograms
from otel_mlmon.processor.receive.histogram_fields import find_header
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey
from tests.processor.receive.test_encoded import BODY, reading
from tests.support.observations import list_points
from tests.support.plain_decode import decode_plainly


@pytest.mark.parametrize("way", ["one by one", "all at once"])
@pytest.mark.parametrize("sizes", [[5], [0, 1, 2, 3, 4, 5], [0, 2], [1, 3], [4, 4, 4]])
def test_what_exporters_send_is_read_into_one_table(sizes: list[int], way: str) -> None:
    values = [[1.0, 2.5], [-1.0, 0.0, 3e9], [0.0], [-4.0, -5.0] * 300, [1.0] * 70_000, [2.0] * 300 + [5.0] * 128]
    builder = MetricsRequestBuilder(ModelKey("m", "1"), sender="s", start_ns=1, end_ns=10)
    for number in sizes:
        builder.add_histogram_point(semconv.FEATURE, values[number], {semconv.FEATURE_NAME: f"f{number}"})
    metrics = builder.request.resource_metrics[0].scope_metrics[0].metrics
    points = [point.SerializeToString() for metric in metrics for point in metric.exponential_histogram.data_points]
    with reading(way):
        rows = read_histograms(points, np.array([find_header(point) for point in points]))
    assert (rows.unread, rows.faults) == ([], {})
    assert (list(rows.start_ns), list(rows.time_ns)) == ([1] * len(sizes), [10] * len(sizes))
    expected = [point.value.sketch for point in list_points(decode_plainly(builder.request).items)]
    assert [rows.table.build_sketch(row) for row in range(len(sizes))] == expected


@pytest.mark.parametrize("way", ["one by one", "all at once"])
def test_points_that_are_not_read_and_points_that_are_wrong_are_told_apart(way: str) -> None:
    wrong = BODY.replace(b"\x12\x03\x01\x00\x02", b"\x12\x03\x01\x00\x03")
    long_count = BODY.replace(
        b"\x42\x07\x08\x0d\x12\x03\x01\x00\x02", b"\x42\x0d\x08\x0d\x12\x09" + b"\x81" * 8 + b"\1"
    )
    open_count = BODY.replace(b"\x12\x03\x01\x00\x02", b"\x12\x03\x01\x00\x82")
    points = [BODY, wrong, long_count, BODY, open_count, wrong, BODY]
    with reading(way):
        rows = read_histograms(points, np.array([26] * 7))
        alone = read_histograms([BODY], np.array([26]))
    assert rows.faults == {1: "count_mismatch", 5: "count_mismatch"}
    assert rows.unread == [2, 4]
    expected = alone.table.build_sketch(0)
    assert [rows.table.build_sketch(row) for row in (0, 3, 6)] == [expected] * 3
