"""The fast decoder makes of any request what the plain one makes of it, whatever was decoded before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive import encoded, identities
from otel_mlmon.processor.receive.codec import parse_request
from otel_mlmon.processor.receive.data_point import DecodedRequest
from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.sketch.table import PointValue
from tests.support.observations import list_points
from tests.support.plain_decode import decode_plainly

KEYS = (
    semconv.MODEL_NAME,
    semconv.MODEL_VERSION,
    semconv.PREDICTION_LABEL,
    semconv.FEATURE_NAME,
    semconv.FEATURE_VALUE,
    semconv.ERROR_TYPE,
    semconv.DEPLOYMENT_ENVIRONMENT,
    "service.name",
    "x",
)
METRICS = (
    semconv.PREDICTIONS.name,
    semconv.FEATURE.name,
    semconv.CATEGORY.name,
    semconv.DURATION.name,
    semconv.CONFIDENCE.name,
    "ml.drift.score",
    "http.server.duration",
)
VALUES = st.one_of(
    st.sampled_from(["", "a", "b", "1"]),
    st.integers(-2, 2),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 1.5]),
    st.sampled_from([b"", b"a"]),
    st.none(),
)
ATTRIBUTES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=5)
TIMES = st.sampled_from([0, 5, 10, 2**63, 2**64 - 1])
COUNTS = st.lists(st.integers(0, 3), max_size=5)
POINTS = st.fixed_dictionaries(
    {
        "attributes": ATTRIBUTES,
        "start": TIMES,
        "time": TIMES,
        "counts": COUNTS,
        "below": st.lists(st.integers(0, 3), max_size=2),
        "offset": st.sampled_from([-(2**31), -3, 0, 7]),
        "scale": st.sampled_from([-11, -2, 0, 3, 20, 21]),
        "zeros": st.integers(0, 2),
        "excess": st.sampled_from([0, 0, 0, 1]),
        "sum": st.sampled_from([None, 0.0, 2.5, float("nan"), float("inf"), -1e300]),
        "extremes": st.sampled_from([(None, None), (0.5, 2.0), (2.0, 0.5), (float("nan"), 1.0)]),
        "flags": st.sampled_from([0, 0, 0, 1]),
        "value": st.sampled_from([None, 0, 3, -1, 2.0, 2.5, float("nan")]),
        "exemplars": st.lists(
            st.tuples(
                st.sampled_from([b"", bytes(16), b"\1" * 16, b"\2" * 16]),
                st.sampled_from([0.0, 0.5, 2.0, -1.0, float("nan"), float("inf")]),
            ),
            max_size=3,
        ),
    }
)
KINDS = st.sampled_from(["sum", "histogram", "exponential_histogram", "gauge", "summary"])
SCOPES = st.fixed_dictionaries(
    {
        "resource": ATTRIBUTES,
        "scope": ATTRIBUTES,
        "name": st.sampled_from(["otel_mlmon", semconv.PROCESSOR_SCOPE]),
        "metrics": st.lists(
            st.tuples(st.sampled_from(METRICS), KINDS, st.integers(0, 3), st.booleans(), st.lists(POINTS, max_size=3)),
            max_size=3,
        ),
    }
)


def set_attributes(target: Any, attributes: list[tuple[str, Any]]) -> None:
    for key, value in attributes:
        pair = target.add(key=key)
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, str):
            pair.value.string_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        elif isinstance(value, float):
            pair.value.double_value = value
        elif isinstance(value, bytes):
            pair.value.bytes_value = value


def add_point(data: Any, kind: str, fields: dict[str, Any]) -> None:
    point = data.data_points.add(start_time_unix_nano=fields["start"], time_unix_nano=fields["time"])
    set_attributes(point.attributes, fields["attributes"])
    point.flags = fields["flags"]
    if kind == "summary":
        return
    for trace_id, value in fields["exemplars"]:
        point.exemplars.add(trace_id=trace_id, as_double=value)
    if kind in ("sum", "gauge"):
        if isinstance(fields["value"], int):
            point.as_int = fields["value"]
        elif fields["value"] is not None:
            point.as_double = fields["value"]
        return
    total = sum(fields["counts"])
    if kind == "histogram":
        point.bucket_counts.extend(fields["counts"])
        point.explicit_bounds.extend(float(bound) for bound in range(max(len(fields["counts"]) - 1, 0)))
    else:
        point.scale, point.zero_count = fields["scale"], fields["zeros"]
        point.positive.offset = fields["offset"]
        point.positive.bucket_counts.extend(fields["counts"])
        point.negative.bucket_counts.extend(fields["below"])
        total += fields["zeros"] + sum(fields["below"])
    point.count = total + fields["excess"]
    if fields["sum"] is not None:
        point.sum = fields["sum"]
    low, high = fields["extremes"]
    if low is not None:
        point.min, point.max = low, high


def build(scopes: list[dict[str, Any]]) -> ExportMetricsServiceRequest:
    message = ExportMetricsServiceRequest()
    for entry in scopes:
        resource = message.resource_metrics.add()
        set_attributes(resource.resource.attributes, entry["resource"])
        scope = resource.scope_metrics.add()
        scope.scope.name = entry["name"]
        set_attributes(scope.scope.attributes, entry["scope"])
        for name, kind, temporality, is_monotonic, points in entry["metrics"]:
            metric = scope.metrics.add(name=name)
            data = getattr(metric, kind)
            data.SetInParent()
            if kind not in ("gauge", "summary"):
                data.aggregation_temporality = temporality
            if kind == "sum":
                data.is_monotonic = is_monotonic
            for fields in points:
                add_point(data, kind, fields)
    return message


def facts(decoded: DecodedRequest) -> str:
    """Everything of a decoded request, as text: not a number is equal to itself there."""
    points = [(point, point.value.sketch) for point in list_points(decoded.items)]
    plain = [(*point._replace(value=PointValue()), sketch) for point, sketch in points]
    return repr((plain, decoded.ignored, decoded.loop_dropped, sorted(decoded.faults.items())))


@settings(deadline=None, max_examples=150)
@given(st.lists(SCOPES, max_size=3))
def test_any_request_is_decoded_as_the_plain_way_decodes_it(scopes: list[dict[str, Any]]) -> None:
    message = build(scopes)
    parsed = parse_request("metrics", message.SerializeToString(), "protobuf")
    assert facts(decode_metrics(parsed)) == facts(decode_plainly(message)) == facts(decode_metrics(message))


def test_what_is_remembered_is_bounded_and_forgotten_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "MAX_CACHED_BYTES", 8_000)
    points = [{"key": f"f{number}"} for number in range(40)]
    message = ExportMetricsServiceRequest()
    scope = message.resource_metrics.add().scope_metrics.add()
    metric = scope.metrics.add(name=semconv.MISSING_VALUES.name)
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 1, True
    for entry in points:
        point = metric.sum.data_points.add(time_unix_nano=10, as_int=1)
        set_attributes(point.attributes, [(semconv.MODEL_NAME, "m"), (semconv.FEATURE_NAME, entry["key"])])
    for _ in range(3):
        assert facts(decode_metrics(message)) == facts(decode_plainly(message))
        assert 0 < identities._CACHE.size_bytes <= 8_000


@pytest.mark.parametrize("buckets", [1, 7, 30])
def test_a_request_of_many_buckets_is_decoded_in_several_tables(monkeypatch: pytest.MonkeyPatch, buckets: int) -> None:
    monkeypatch.setattr(encoded, "MAX_TABLE_BUCKETS", buckets)
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name=semconv.FEATURE.name)
    metric.exponential_histogram.aggregation_temporality = 1
    for number in range(20):
        counts = list(range(number))
        point = metric.exponential_histogram.data_points.add(time_unix_nano=10, count=sum(counts) + number % 3 // 2)
        point.positive.bucket_counts.extend(counts)
        if number % 2:  # these are read from their bytes
            point.start_time_unix_nano, point.sum = 5, 1.5
        set_attributes(point.attributes, [(semconv.MODEL_NAME, "m"), (semconv.FEATURE_NAME, f"f{number}")])
    decoded = decode_metrics(message)
    assert facts(decoded) == facts(decode_plainly(message))
    assert decoded.faults == {"count_mismatch": 6}
    assert len({id(point.value.table) for point in list_points(decoded.items)}) > 1


def test_attributes_that_are_none_make_a_request_malformed() -> None:
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name=semconv.PREDICTIONS.name)
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 1, True
    metric.sum.data_points.add(time_unix_nano=10, as_int=1).attributes.add(key="ml.model.name")
    body = message.SerializeToString().replace(b"ml.model.name", b"ml.model.nam\xff")  # no UTF-8
    with pytest.raises(MalformedError, match="attributes"):
        decode_metrics(parse_request("metrics", body, "protobuf"))
