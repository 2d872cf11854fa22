"""Exponential histograms that are read from their bytes are what their messages say, in whatever layout they come."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint

from otel_mlmon import semconv
from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive import histogram_fields
from otel_mlmon.processor.receive.codec import parse_request
from otel_mlmon.processor.receive.decode import decode_metrics
from tests.processor.receive.test_decode_oracle import facts, set_attributes
from tests.support.plain_decode import decode_plainly

COUNT = st.one_of(st.integers(0, 3), st.sampled_from([127, 128, 300, 2**14, 2**35, 2**49 + 1, 2**60, 2**64 - 1]))
COUNTS = st.one_of(st.lists(COUNT, max_size=5), st.sampled_from([[1] * 130, [200] * 100, [1] * 321, [200] * 161]))
NAMES = st.sampled_from(["a", "b" * 90, "c" * 140, "é"])
ATTRIBUTES = st.one_of(
    st.tuples(st.sampled_from([semconv.FEATURE_NAME, semconv.MODEL_NAME]), NAMES),
    st.tuples(st.just("x"), st.sampled_from(["d" * 3_000, "e" * 17_000])),
)
TIMES = st.sampled_from([1, 10, 2**63 - 1, 2**63])
POINTS = st.fixed_dictionaries(
    {
        "attributes": st.lists(ATTRIBUTES, max_size=3),
        "start": TIMES,
        "time": TIMES,
        "scale": st.sampled_from([-11, -10, -1, 0, 3, 20, 21, 100]),
        "zeros": st.sampled_from([0, 1, 127, 128, 2**40, 2**63]),
        "above": st.tuples(st.sampled_from([-(2**31), -1_075, -64, 0, 5, 63, 64, 2_000, 2**28]), COUNTS),
        "below": st.tuples(st.sampled_from([-64, 0, 5, 2**28]), COUNTS),
        "excess": st.sampled_from([0, 0, 0, 0, 1]),
        "sum": st.sampled_from([None, 0.0, 2.5, float("nan"), float("inf"), -1e300, 5e-324]),
        "extremes": st.tuples(*[st.sampled_from([None, 0.0, 0.5, 2.0, float("nan"), float("inf"), -float("inf")])] * 2),
        "threshold": st.sampled_from([0.0, 0.0, 1e-9]),
        "flags": st.sampled_from([0, 0, 0, 1, 2]),
        "exemplars": st.integers(0, 3).map(lambda number: number // 3),
    }
)


def build_point(fields: dict[str, Any]) -> ExponentialHistogramDataPoint:
    point = ExponentialHistogramDataPoint(start_time_unix_nano=fields["start"], time_unix_nano=fields["time"])
    set_attributes(point.attributes, fields["attributes"])
    point.scale, point.zero_count, point.flags = fields["scale"], fields["zeros"], fields["flags"]
    for buckets, (offset, counts) in ((point.positive, fields["above"]), (point.negative, fields["below"])):
        if counts:
            buckets.offset = offset
            buckets.bucket_counts.extend(counts)
    total = fields["zeros"] + sum(fields["above"][1]) + sum(fields["below"][1])
    point.count = min(total + fields["excess"], 2**64 - 1)
    if fields["sum"] is not None:
        point.sum = fields["sum"]
    low, high = fields["extremes"]
    if low is not None:
        point.min = low
    if high is not None:
        point.max = high
    point.zero_threshold = fields["threshold"]
    for _ in range(fields["exemplars"]):
        point.exemplars.add(trace_id=b"\1" * 16, as_double=0.5)
    return point


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    size, digits = len(content), []
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *digits, size]) + content


def build_body(points: list[bytes]) -> bytes:
    """A request about the model `m` with these points, as deltas of a feature."""
    scope = ExportMetricsServiceRequest()
    set_attributes(scope.resource_metrics.add().scope_metrics.add().scope.attributes, [(semconv.MODEL_NAME, "m")])
    data = b"".join(field(1, point) for point in points) + b"\x10\x01"
    metric = field(1, semconv.FEATURE.name.encode()) + field(10, data)
    named = scope.resource_metrics[0].scope_metrics[0].SerializeToString()
    return field(1, field(2, named + field(2, metric)))


@contextmanager
def reading(way: str) -> Iterator[None]:
    """Points are read one by one, or all at once, however many they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histogram_fields, "FEW_POINTS", {"one by one": 10**6, "all at once": 0}[way])
        yield


WAYS = pytest.mark.parametrize("way", ["one by one", "all at once"])


@WAYS
@settings(deadline=None, max_examples=150)
@given(points=st.lists(POINTS, max_size=4))
def test_points_are_what_their_messages_say(points: list[dict[str, Any]], way: str) -> None:
    body = build_body([build_point(fields).SerializeToString() for fields in points])
    message = ExportMetricsServiceRequest.FromString(body)
    with reading(way):
        for _ in range(2):  # of series that are new, and of those that were seen
            assert facts(decode_metrics(parse_request("metrics", body, "protobuf"))) == facts(decode_plainly(message))


USUAL = ExponentialHistogramDataPoint(start_time_unix_nano=1, time_unix_nano=2, count=7, sum=1.5, scale=3)
USUAL.positive.offset, USUAL.negative.offset, USUAL.zero_count, USUAL.min, USUAL.max = -7, 300, 1, -2.0, 8.0
USUAL.positive.bucket_counts.extend([1, 0, 2])
USUAL.negative.bucket_counts.extend([3])
set_attributes(USUAL.attributes, [(semconv.FEATURE_NAME, "age")])
BODY = USUAL.SerializeToString()
FIELDS = st.one_of(
    st.sampled_from(
        [
            b"\x11" + struct.pack("<Q", 1),
            b"\x19" + struct.pack("<Q", 2),
            b"\x21" + struct.pack("<Q", 3),
            b"\x29" + struct.pack("<d", 0.5),
            b"\x30\x02",
            b"\x30\x82\x00",
            b"\x30\x80\x80\x80\x80\x10",
            b"\x39" + struct.pack("<Q", 1),
            b"\x50\x01",
            b"\x61" + struct.pack("<d", 0.5),
            b"\x69" + struct.pack("<d", 0.5),
            b"\x71" + struct.pack("<d", 0.5),
            field(5, b""),
            field(15, b"\xff"),
            b"\x7b\x7c",
        ]
    ),
    st.tuples(
        st.sampled_from([8, 9]),
        st.lists(
            st.sampled_from(
                [b"\x08\x04", b"\x08\x84\x00", field(2, b"\x01\x02"), field(2, b""), b"\x10\x02", b"\x12\x02\x80\x01"]
            ),
            max_size=3,
        ),
    ).map(lambda buckets: field(buckets[0], b"".join(buckets[1]))),
    st.tuples(st.just(1), st.sampled_from([b"\x0a\x01k", b"\x0a\x01\xff", b"", BODY[2:10]])).map(
        lambda attribute: field(*attribute)
    ),
)
EDITS = st.lists(st.tuples(st.integers(0, len(BODY)), st.integers(0, 3), st.binary(max_size=2)), max_size=3)


def edit(point: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for position, removed, added in edits:
        point = point[:position] + added + point[position + removed :]
    return point


@WAYS
@settings(deadline=None, max_examples=300)
@given(point=st.one_of(EDITS.map(lambda edits: edit(BODY, edits)), st.lists(FIELDS, max_size=12).map(b"".join)))
@example(point=BODY + BODY)
@example(point=BODY[:-18])
@example(point=BODY.replace(b"\x12\x03\x01\x00\x02", b"\x10\x01\x10\x00\x10\x02"))
@example(point=BODY.replace(b"\x42\x07\x08\x0d\x12\x03\x01\x00\x02", b"\x42\x09\x08\x0d\x12\x03\x01\x00\x02\x10\x00"))
@example(point=BODY.replace(b"\x12\x03\x01\x00\x02", b"\x12\x03\x01\x80\x02"))
@example(point=BODY.replace(b"\x12\x03\x01\x00\x02", b"\x12\x03\x01\x02\x80"))
@example(point=BODY.replace(b"\x42\x07\x08\x0d", b"\x42\x0b\x08\x8d\x80\x80\x80\x00"))
@example(point=BODY.replace(b"\x42\x07\x08\x0d", b"\x42\x0c\x08\x8d\x80\x80\x80\x80\x00"))
@example(point=BODY.replace(b"\x42\x07\x08\x0d", b"\x42\x10\x08\x8d" + b"\x80" * 8 + b"\x00"))
@example(point=BODY.replace(b"\x42\x07\x08\x0d", b"\x42\x11\x08\x8d" + b"\x80" * 9 + b"\x00"))
@example(point=BODY.replace(b"\x42\x07\x08\x0d", b"\x42\x07\x08" + b"\xff" * 2_000_000 + b"\x0d"))
def test_bytes_in_any_layout_are_what_their_message_says(point: bytes, way: str) -> None:
    # What comes behind a point that ends too early must not be taken for its own.
    for points in ([point], [BODY, point, BODY]):
        with reading(way):
            check_against_message(build_body(points), others=len(points) - 1)


def check_against_message(body: bytes, *, others: int) -> None:
    """Checks a request of a point and valid `others`."""
    try:
        message = ExportMetricsServiceRequest.FromString(body)
    except DecodeError:
        message = None
    try:
        decoded = decode_metrics(parse_request("metrics", body, "protobuf"))
    except MalformedError:
        assert message is None
        return
    if message is None:  # what is rejected for another reason is not read to its end
        assert decoded.accepted == others
    else:
        assert facts(decoded) == facts(decode_plainly(message))


def test_a_point_that_is_none_makes_a_request_malformed() -> None:
    with pytest.raises(MalformedError, match="A point of an exponential histogram is not one in protobuf"):
        decode_metrics(parse_request("metrics", build_body([BODY, b"\x0a\x05"]), "protobuf"))
