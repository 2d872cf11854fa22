from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from otel_mlmon.processor.receive import identities, sketches
from otel_mlmon.processor.receive.data_point import DataPoint, DecodedRequest
from otel_mlmon.processor.receive.decode import count_points, decode_metrics
from otel_mlmon.sketch.exponential import BIAS, ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.types import ModelKey
from tests.support.observations import list_points
from tests.support.otlp_requests import (
    CUMULATIVE,
    DELTA,
    NOW_NS,
    START_NS,
    counter,
    exponential,
    histogram,
    predictions,
    request,
)

LABEL = {"ml.model.name": "fraud", "ml.model.version": "7", "ml.prediction.label": "spam"}
FEATURE = {"ml.model.name": "fraud", "ml.feature.name": "age"}


def only(decoded: DecodedRequest) -> DataPoint:
    assert (decoded.accepted, decoded.ignored, decoded.loop_dropped, decoded.faults) == (1, 0, 0, {})
    (point,) = list_points(decoded.items)
    return point


def fault(message: ExportMetricsServiceRequest) -> Mapping[str, int]:
    decoded = decode_metrics(message)
    assert (decoded.accepted, decoded.ignored, decoded.loop_dropped) == (0, 0, 0)
    return decoded.faults


def test_an_empty_request_holds_nothing() -> None:
    assert decode_metrics(ExportMetricsServiceRequest()) == DecodedRequest()


def test_a_counter_becomes_an_observation() -> None:
    point = only(decode_metrics(request("ml.predictions", "sum", counter(41), attributes=LABEL)))
    assert (point.identity.model, point.identity.metric, point.identity.key, point.identity.category) == (
        ModelKey("fraud", "7"),
        "ml.predictions",
        "spam",
        "",
    )
    assert (point.start_ns, point.time_ns, point.is_cumulative) == (START_NS, NOW_NS, True)
    assert (point.value.sketch, point.exemplars) == (41, ())
    assert len(point.identity.series) == 32


def test_a_histogram_keeps_buckets_and_moments() -> None:
    fill = histogram([0.1, 0.2], [3, 0, 1], sum=1.25, min=0.05, max=0.75)
    point = only(decode_metrics(request("ml.inference.duration", "histogram", fill, temporality=DELTA)))
    assert not point.is_cumulative
    assert point.value.sketch == Histogram(
        bounds=(0.1, 0.2),
        counts=np.array([3, 0, 1]),
        moments=Moments.from_total(count=4, total=1.25, minimum=0.05, maximum=0.75),
    )


def test_a_histogram_without_buckets_has_one() -> None:
    point = only(decode_metrics(request("ml.inference.duration", "histogram", histogram([], [], count=5))))
    assert point.value.sketch == Histogram(bounds=(), counts=np.array([5]), moments=Moments(count=5))


def test_an_exponential_histogram_keeps_its_buckets() -> None:
    fill = exponential(3, (-2, [1, 0, 4]), (5, [2, 1]), 9, sum=2.5, zero_threshold=1e-9)
    point = only(decode_metrics(request("ml.input.feature", "exponential_histogram", fill, attributes=FEATURE)))
    assert point.identity.key == "age"
    assert point.value.sketch == ExponentialHistogram(
        scale=3,
        ordinals=np.array([-(6 + BIAS), -(5 + BIAS), 0, BIAS - 2, BIAS]),
        counts=np.array([1, 2, 9, 1, 4]),
        moments=Moments.from_total(count=17, total=2.5),
    )


def test_a_category_is_split_by_feature_and_value() -> None:
    attributes = {"ml.model.name": "m", "ml.feature.name": "country", "ml.feature.value": "IS"}
    point = only(decode_metrics(request("ml.input.category", "sum", counter(1), attributes=attributes)))
    assert (point.identity.key, point.identity.category) == ("country", "IS")


def test_extremes_that_contradict_each_other_are_unknown() -> None:
    fill = histogram([1.0], [1, 0], min=5.0, max=-5.0)
    point = only(decode_metrics(request("ml.prediction.confidence", "histogram", fill)))
    assert isinstance(point.value.sketch, Histogram)
    assert (point.value.sketch.moments.minimum, point.value.sketch.moments.maximum) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("metric", "kind", "fill", "reason"),
    [
        ("ml.inference.duration", "histogram", histogram([1.0], [1, 1], count=3), "count_mismatch"),
        ("ml.inference.duration", "histogram", histogram([1.0], [1]), "bucket_mismatch"),
        ("ml.inference.duration", "histogram", histogram([1.0], [], count=2), "bucket_mismatch"),
        ("ml.inference.duration", "histogram", histogram([1.0, 1.0], [0, 0, 0]), "bounds_not_increasing"),
        ("ml.inference.duration", "histogram", histogram([2.0, 1.0], [0, 0, 0]), "bounds_not_increasing"),
        ("ml.inference.duration", "histogram", histogram([math.nan], [0, 0]), "bounds_not_increasing"),
        ("ml.inference.duration", "histogram", histogram([math.inf], [0, 0]), "bounds_not_increasing"),
        ("ml.inference.duration", "histogram", histogram([1.0], [2**53, 1]), "too_large"),
        ("ml.inference.duration", "histogram", histogram([1.0], [2**63, 2**63 - 1]), "too_large"),
        ("ml.inference.duration", "gauge", counter(1), "wrong_type"),
        ("ml.inference.duration", "sum", counter(1), "wrong_type"),
        ("ml.predictions", "gauge", counter(1), "wrong_type"),
        ("ml.predictions", "histogram", histogram([], [], count=1), "wrong_type"),
        ("ml.predictions", "sum", counter(-1), "bad_value"),
        ("ml.predictions", "sum", counter(2**53 + 1), "too_large"),
        ("ml.predictions", "sum", lambda point: None, "no_value"),
        ("ml.prediction.value", "exponential_histogram", exponential(21), "bad_scale"),
        ("ml.prediction.value", "exponential_histogram", exponential(-11), "bad_scale"),
        ("ml.prediction.value", "exponential_histogram", exponential(0, (1025, [1])), "bad_offset"),
        ("ml.prediction.value", "exponential_histogram", exponential(0, (0, []), (-1077, [1])), "bad_offset"),
        (
            "ml.prediction.value",
            "exponential_histogram",
            exponential(20, (0, [1] * 10_001)),
            "too_many_buckets",
        ),
        ("ml.inference.duration", "histogram", histogram([float(n) for n in range(10_000)], []), "too_many_buckets"),
        ("ml.inference.duration", "histogram", histogram([], [1] * 10_001), "too_many_buckets"),
        ("ml.prediction.value", "exponential_histogram", exponential(0, (0, [1]), count=2), "count_mismatch"),
        ("ml.prediction.value", "exponential_histogram", exponential(0, (0, [2**53, 1])), "too_large"),
        ("ml.input.missing", "sum", counter(1), "no_feature_name"),
        ("ml.output.item.confidence", "histogram", histogram([], [], count=1), "no_output_name"),
    ],
)
def test_what_breaks_the_data_model_is_rejected_with_its_reason(
    metric: str, kind: str, fill: Callable[[Any], None], reason: str
) -> None:
    assert fault(request(metric, kind, fill)) == {reason: 1}


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1.5])
def test_a_counter_counts_whole_things(value: float) -> None:
    def fill(point: Any) -> None:
        point.as_double = value

    assert fault(request("ml.input.samples", "sum", fill)) == {"bad_value": 1}


def test_a_counter_of_doubles_is_read() -> None:
    def fill(point: Any) -> None:
        point.as_double = 3.0

    assert only(decode_metrics(request("ml.input.samples", "sum", fill))).value.sketch == 3


@pytest.mark.parametrize(
    ("times", "reason"),
    [((0, 0), "no_time"), ((5, 4), "bad_time"), ((0, 2**63), "bad_time")],
)
def test_a_point_has_a_time(times: tuple[int, int], reason: str) -> None:
    def fill(point: Any) -> None:
        point.start_time_unix_nano, point.time_unix_nano = times

    assert fault(request("ml.input.samples", "sum", fill)) == {reason: 1}


def facts(point: DataPoint) -> tuple[object, ...]:
    """A point as a value that compares."""
    times = point.start_ns, point.time_ns, point.is_cumulative
    return (*point.identity[:4], *times, point.value.sketch, point.exemplars)


@pytest.mark.parametrize(
    ("fill", "kind", "metric", "count"),
    [
        (counter(0), "sum", "ml.input.samples", 0),
        (counter(2**53), "sum", "ml.input.samples", 2**53),
        (lambda point: setattr(point, "as_double", 2.0**53), "sum", "ml.input.samples", 2**53),
        (histogram([1.0], [2**53 - 1, 1]), "histogram", "ml.inference.duration", 2**53),
        (exponential(0, (0, [2**53 - 1]), (0, []), 1), "exponential_histogram", "ml.prediction.value", 2**53),
    ],
)
def test_the_largest_count_that_is_exact_is_accepted(
    fill: Callable[[Any], None], kind: str, metric: str, count: int
) -> None:
    sketch = only(decode_metrics(request(metric, kind, fill))).value.sketch
    assert (sketch if isinstance(sketch, int) else sketch.total) == count


@pytest.mark.parametrize("times", [(0, 1), (5, 5), (2**63 - 1, 2**63 - 1)])
def test_times_up_to_the_limits_are_accepted(times: tuple[int, int]) -> None:
    def fill(point: Any) -> None:
        point.as_int = 1
        point.start_time_unix_nano, point.time_unix_nano = times

    point = only(decode_metrics(request("ml.input.samples", "sum", fill)))
    assert (point.start_ns, point.time_ns) == times


@pytest.mark.parametrize(
    ("scale", "offset", "length", "reason"),
    [
        (-10, 0, 1, None),
        (20, 0, 10_000, None),
        (0, 1024, 1, None),
        (0, 1023, 2, None),
        (0, 1023, 3, "bad_offset"),
        (0, -1076, 1, None),
        (0, -1076, 3, None),
        (0, -1077, 1, "bad_offset"),
        (1, 2048, 1, None),
        (1, 2049, 1, "bad_offset"),
        (1, -2151, 1, None),
        (1, -2152, 1, "bad_offset"),
        (-1, 512, 1, None),
        (-1, 513, 1, "bad_offset"),
        (-1, -539, 1, None),
        (-1, -540, 1, "bad_offset"),
    ],
)
@pytest.mark.parametrize("is_negative", [False, True])
def test_buckets_lie_where_a_float_can(
    scale: int, offset: int, length: int, reason: str | None, *, is_negative: bool
) -> None:
    buckets, empty = (offset, [1] * length), (0, list[int]())
    fill = exponential(scale, *((empty, buckets) if is_negative else (buckets, empty)))
    decoded = decode_metrics(request("ml.prediction.value", "exponential_histogram", fill))
    assert (decoded.accepted, decoded.faults) == ((1, {}) if reason is None else (0, {reason: 1}))
    for point in list_points(decoded.items):
        assert isinstance(point.value.sketch, ExponentialHistogram)
        assert point.value.sketch.total == length


@pytest.mark.parametrize(
    ("fields", "extremes"),
    [
        ({"min": 0.5, "max": 0.5}, (0.5, 0.5)),
        ({"min": 0.25, "max": 0.5}, (0.25, 0.5)),
        ({"min": 0.25}, (0.25, -math.inf)),
        ({"max": 0.5}, (math.inf, 0.5)),
        ({}, (math.inf, -math.inf)),
        ({"min": math.nan, "max": 0.5}, (math.inf, -math.inf)),
        ({"min": 0.5, "max": 0.25}, (math.inf, -math.inf)),
    ],
)
def test_extremes_are_kept_where_they_are_known(fields: dict[str, float], extremes: tuple[float, float]) -> None:
    fill = histogram([1.0], [1, 0], **fields)
    sketch = only(decode_metrics(request("ml.prediction.confidence", "histogram", fill))).value.sketch
    assert isinstance(sketch, Histogram)
    assert (sketch.moments.minimum, sketch.moments.maximum) == extremes


@pytest.mark.parametrize(("temporality", "is_cumulative"), [(DELTA, False), (CUMULATIVE, True)])
@pytest.mark.parametrize("kind", ["sum", "histogram", "exponential_histogram"])
def test_both_temporalities_are_read_of_every_kind(kind: str, temporality: int, *, is_cumulative: bool) -> None:
    metric, fill = {
        "sum": ("ml.input.samples", counter(1)),
        "histogram": ("ml.inference.batch.size", histogram([], [], count=1)),
        "exponential_histogram": ("ml.input.feature", exponential(0, zero_count=1)),
    }[kind]
    attributes = {"ml.model.name": "m", "ml.feature.name": "age"}
    message = request(metric, kind, fill, temporality=temporality, attributes=attributes, is_monotonic=kind == "sum")
    point = only(decode_metrics(message))
    assert (point.identity.metric, point.is_cumulative) == (metric, is_cumulative)
    for unknown in (0, 3):
        broken = request(metric, kind, fill, points=2, temporality=unknown, attributes=attributes)
        assert fault(broken) == {"no_temporality": 2}


def test_a_histogram_need_not_be_monotonic() -> None:
    message = request("ml.inference.batch.size", "histogram", histogram([], [], count=1))
    assert only(decode_metrics(message)).identity.metric == "ml.inference.batch.size"


@pytest.mark.parametrize(
    ("metric", "kind", "attributes", "key", "category"),
    [
        ("ml.inference.duration", "histogram", {"error.type": "ValueError"}, "ValueError", ""),
        ("ml.inference.duration", "histogram", {}, "", ""),
        ("ml.inference.batch.size", "histogram", {"error.type": "ValueError"}, "", ""),
        ("ml.predictions", "sum", {"ml.prediction.label": "spam", "ml.feature.value": "IS"}, "spam", ""),
        ("ml.predictions", "sum", {}, "", ""),
        ("ml.predictions", "sum", {"ml.prediction.label": "red", "ml.output.name": "color"}, "red", "color"),
        ("ml.prediction.confidence", "histogram", {"ml.output.name": "color"}, "color", ""),
        ("ml.output.item.confidence", "histogram", {"ml.output.name": "boxes"}, "boxes", ""),
        ("ml.prediction.value", "exponential_histogram", {"ml.output.name": "price"}, "price", ""),
        ("ml.input.missing", "sum", {"ml.feature.name": "age"}, "age", ""),
        ("ml.input.category", "sum", {"ml.feature.name": "country"}, "country", ""),
    ],
)
def test_a_point_is_split_by_the_attributes_of_its_metric(
    metric: str, kind: str, attributes: dict[str, str], key: str, category: str
) -> None:
    fill = {"sum": counter(1), "histogram": histogram([], [], count=1), "exponential_histogram": exponential(0)}[kind]
    point = only(decode_metrics(request(metric, kind, fill, attributes={"ml.model.name": "m", **attributes})))
    assert (point.identity.metric, point.identity.key, point.identity.category) == (metric, key, category)


def test_a_request_of_many_kinds_is_decoded_and_counted_as_a_whole() -> None:
    message = ExportMetricsServiceRequest()
    parts = (
        request("ml.predictions", "sum", counter(3), attributes=LABEL, points=2),
        request("ml.predictions", "sum", counter(-3), attributes=LABEL),
        request("ml.predictions", "gauge", counter(3), points=4),
        request("http.server.duration", "histogram", histogram([], []), points=8),
        request("ml.drift.score", "gauge", counter(1), points=16),
        request("ml.predictions", "sum", counter(3), points=32, scope="otel_mlmon.processor"),
        request("ml.alert.state", "gauge", counter(1)),
    )
    for part in parts:
        message.MergeFrom(part)
    message.resource_metrics[0].scope_metrics[0].metrics.add(name="ml.predictions")  # without any data
    message.resource_metrics[0].scope_metrics[0].metrics.add(name="http.server.duration")
    message.resource_metrics[5].scope_metrics[0].metrics.add(name="ml.predictions")
    decoded = decode_metrics(message)
    point = (ModelKey("fraud", "7"), "ml.predictions", "spam", "", START_NS, NOW_NS, True, 3, ())
    assert [facts(point) for point in list_points(decoded.items)] == [point, point]
    assert (decoded.accepted, decoded.ignored, decoded.loop_dropped, decoded.unused) == (2, 8, 49, 0)
    assert (decoded.faults, decoded.rejected, decoded.points) == ({"bad_value": 1, "wrong_type": 4}, 5, 64)
    assert count_points(message) == 64
    first, second = list_points(decoded.items)
    assert first.identity.series == second.identity.series


def test_a_name_that_is_no_text_counts_as_one() -> None:
    def fill(point: Any) -> None:
        point.as_int = 1
        point.attributes.add(key="ml.model.name").value.int_value = 7
        point.attributes.add(key="ml.model.version").value.bool_value = True

    message = request("ml.input.samples", "sum", fill, attributes={})
    assert only(decode_metrics(message)).identity.model == ModelKey("7", "true")


def test_the_identity_of_a_series_is_the_same_at_every_export() -> None:
    attributes = {"ml.model.name": "m", "ml.prediction.label": "a"}
    names = {
        only(decode_metrics(request("ml.predictions", "sum", counter(count), attributes=attributes))).identity.series
        for count in (1, 2)
    }
    assert names == {"0e3ea2d693acec720225083a1568e077"}  # stored with the series, so it must not change


def test_temporality_and_monotonicity_are_demanded_of_every_point() -> None:
    assert fault(request("ml.input.samples", "sum", counter(1), points=3, temporality=0)) == {"no_temporality": 3}
    assert fault(request("ml.input.samples", "sum", counter(1), points=2, is_monotonic=False)) == {"not_monotonic": 2}


def test_a_value_that_was_not_recorded_is_not_a_zero() -> None:
    def fill(point: Any) -> None:
        point.flags = 1

    decoded = decode_metrics(request("ml.input.samples", "sum", fill))
    assert (decoded.items, decoded.ignored, decoded.rejected) == ((), 1, 0)


def test_what_a_processor_sent_is_dropped() -> None:
    own = request("ml.predictions", "sum", counter(1), points=2, scope="otel_mlmon.processor")
    drift = request("ml.drift.score", "gauge", counter(1), points=3)
    alert = request("ml.alert.state", "gauge", counter(1))
    requests = [decode_metrics(message) for message in (own, drift, alert)]
    assert [(decoded.loop_dropped, decoded.points) for decoded in requests] == [(2, 2), (3, 3), (1, 1)]


def test_metrics_of_others_are_ignored() -> None:
    decoded = decode_metrics(request("http.server.duration", "histogram", histogram([], []), points=4))
    assert (decoded.ignored, decoded.points) == (4, 4)


def test_the_model_is_looked_for_on_the_point_then_the_scope_then_the_resource() -> None:
    message = request(
        "ml.input.samples",
        "sum",
        counter(1),
        attributes={},
        resource={"ml.model.name": "of-resource", "ml.model.version": "1", "service.name": "shop"},
    )
    assert only(decode_metrics(message)).identity.model == ModelKey("of-resource", "1")
    scope = message.resource_metrics[0].scope_metrics[0].scope
    scope.attributes.add(key="ml.model.name").value.string_value = "of-scope"
    assert only(decode_metrics(message)).identity.model == ModelKey("of-scope", "1")
    point = message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
    point.attributes.add(key="ml.model.name").value.string_value = "of-point"
    assert only(decode_metrics(message)).identity.model == ModelKey("of-point", "1")


def test_the_environment_is_part_of_the_model_and_the_point_wins_over_scope_and_resource() -> None:
    message = request(
        "ml.input.samples",
        "sum",
        counter(1),
        attributes={"ml.model.name": "fraud", "ml.model.version": "7"},
        resource={"deployment.environment.name": "of-resource", "service.name": "shop"},
    )
    assert only(decode_metrics(message)).identity.model == ModelKey("fraud", "7", "of-resource")
    scope = message.resource_metrics[0].scope_metrics[0].scope
    scope.attributes.add(key="deployment.environment.name").value.string_value = "of-scope"
    assert only(decode_metrics(message)).identity.model == ModelKey("fraud", "7", "of-scope")
    point = message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
    point.attributes.add(key="deployment.environment.name").value.string_value = "of-point"
    assert only(decode_metrics(message)).identity.model == ModelKey("fraud", "7", "of-point")


def test_the_service_stands_in_for_a_model_without_a_name() -> None:
    named = request("ml.input.samples", "sum", counter(1), attributes={}, resource={"service.name": "shop"})
    assert only(decode_metrics(named)).identity.model == ModelKey("shop", "")
    assert fault(request("ml.input.samples", "sum", counter(1), attributes={})) == {"no_model_name": 1}


@pytest.mark.parametrize(("flags", "accepted"), [(0, 1), (1, 0), (2, 1), (3, 0)])
def test_only_the_flag_of_a_value_not_recorded_is_looked_at(flags: int, accepted: int) -> None:
    def fill(point: Any) -> None:
        point.flags, point.as_int = flags, 1

    decoded = decode_metrics(request("ml.input.samples", "sum", fill))
    assert (decoded.accepted, decoded.ignored, decoded.rejected) == (accepted, 1 - accepted, 0)


def test_at_most_four_trace_ids_are_kept() -> None:
    def fill(point: Any) -> None:
        point.as_int = 1
        for trace_id in (b"", bytes(16), b"\x01" * 15, *(bytes([n]) * 16 for n in (1, 1, 2, 3, 4, 5))):
            point.exemplars.add(trace_id=trace_id)

    point = only(decode_metrics(request("ml.input.samples", "sum", fill)))
    assert point.exemplars == tuple((f"0{digit}" * 16, 0.0) for digit in (1, 2, 3, 4))


def test_the_trace_ids_of_the_largest_values_are_kept() -> None:
    def fill(point: Any) -> None:
        point.as_int = 1
        for number, value in enumerate((0.1, 0.5, math.nan, math.inf, -1.0, 0.3, 0.2)):
            point.exemplars.add(trace_id=bytes([number + 1]) * 16, as_double=value)
        point.exemplars.add(trace_id=b"\1" * 16, as_double=0.4)

    point = only(decode_metrics(request("ml.input.samples", "sum", fill)))
    assert point.exemplars == (("02" * 16, 0.5), ("01" * 16, 0.4), ("06" * 16, 0.3), ("07" * 16, 0.2))


def test_every_kind_of_attribute_value_is_accepted() -> None:
    def fill(point: Any) -> None:
        point.as_int = 1
        point.attributes.add(key="empty")
        point.attributes.add(key="flag").value.bool_value = True
        point.attributes.add(key="number").value.int_value = 1
        point.attributes.add(key="real").value.double_value = math.nan
        point.attributes.add(key="raw").value.bytes_value = b"\xff"
        point.attributes.add(key="list").value.array_value.values.add().string_value = "x"
        point.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.int_value = 2
        point.attributes.add(key="index").value.string_value_strindex = 1

    assert only(decode_metrics(request("ml.input.samples", "sum", fill))).identity.model.name == "fraud"


def series_of(attributes: dict[str, Any], *, resource: dict[str, str] | None = None) -> str:
    def fill(point: Any) -> None:
        point.as_int = 1
        for key, value in attributes.items():
            kind = {str: "string_value", int: "int_value", bool: "bool_value", float: "double_value"}[type(value)]
            setattr(point.attributes.add(key=key).value, kind, value)

    return only(decode_metrics(request("ml.input.samples", "sum", fill, resource=resource))).identity.series


def test_a_series_is_named_by_everything_that_tells_writers_apart() -> None:
    names = [
        series_of({}),
        series_of({"a": "1"}),
        series_of({"a": 1}),
        series_of({"a": 1.0}),
        series_of({"a": True}),
        series_of({"a": "1", "b": ""}),
        series_of({"a": "1', 'b': '"}),
        series_of({}, resource={"service.instance.id": "x"}),
        only(decode_metrics(predictions())).identity.series,
    ]
    assert len(set(names)) == len(names)
    assert series_of({"a": "1", "b": "2"}) == series_of({"b": "2", "a": "1"})
    assert series_of({"a": 1, "b": "2"}) == series_of({"b": "2", "a": 1})


values = st.floats(allow_nan=True, allow_infinity=True)
numbers = st.integers(0, 2**64 - 1)


@st.composite
def any_requests(draw: st.DrawFn) -> ExportMetricsServiceRequest:
    names = ["ml.predictions", "ml.input.feature", "ml.inference.duration", "ml.drift.score", "else"]
    message = ExportMetricsServiceRequest()
    scope = message.resource_metrics.add().scope_metrics.add()
    scope.scope.name = draw(st.sampled_from(["otel_mlmon", "otel_mlmon.processor"]))
    for _ in range(draw(st.integers(0, 4))):
        metric = scope.metrics.add(name=draw(st.sampled_from(names)))
        kind = draw(st.sampled_from(["gauge", "sum", "histogram", "exponential_histogram", "summary"]))
        data = getattr(metric, kind)
        data.SetInParent()
        if hasattr(data, "aggregation_temporality"):
            data.aggregation_temporality = draw(st.integers(0, 3))
        for _ in range(draw(st.integers(0, 4))):
            point = data.data_points.add(time_unix_nano=draw(numbers), flags=draw(st.integers(0, 3)))
            for key in draw(st.lists(st.sampled_from(["ml.model.name", "ml.feature.name", "x"]), max_size=4)):
                point.attributes.add(key=key).value.string_value = draw(st.text(max_size=3))
            if kind == "histogram":
                point.count = draw(st.integers(0, 4))
                point.explicit_bounds.extend(draw(st.lists(values, max_size=3)))
                point.bucket_counts.extend(draw(st.lists(st.integers(0, 3) | numbers, max_size=4)))
                point.sum, point.min, point.max = draw(values), draw(values), draw(values)
            elif kind == "exponential_histogram":
                point.count = draw(st.integers(0, 4))
                point.scale = draw(st.integers(-12, 22))
                point.positive.offset = draw(st.integers(-(2**31), 2**31 - 1) | st.integers(-5, 5))
                point.positive.bucket_counts.extend(draw(st.lists(st.integers(0, 3) | numbers, max_size=4)))
                point.sum = draw(values)
            elif kind == "sum":
                point.as_double = draw(values | st.integers(0, 5).map(float))
    return message


@settings(deadline=None, max_examples=150)
@given(any_requests())
def test_every_point_is_counted_once_and_what_is_accepted_is_sound(
    message: ExportMetricsServiceRequest,
) -> None:
    sent = sum(
        len(getattr(metric, metric.WhichOneof("data")).data_points)
        for metric in message.resource_metrics[0].scope_metrics[0].metrics
    )
    decoded = decode_metrics(message)
    assert decoded.points == sent
    assert decoded.accepted == len(list_points(decoded.items))
    assert decoded.rejected == sum(decoded.faults.values())
    for point in list_points(decoded.items):
        assert point.identity.model.name
        total = point.value.sketch if isinstance(point.value.sketch, int) else point.value.sketch.total
        assert 0 <= total <= 2**53
        if not isinstance(point.value.sketch, int):
            assert point.value.sketch.moments.count == total


@settings(deadline=None, max_examples=100)
@given(
    scale=st.integers(-10, 20),
    offset=st.integers(-400, 400),
    counts=st.lists(st.integers(0, 5), max_size=400),
    below=st.lists(st.integers(0, 5), max_size=40),
    zeros=st.integers(0, 3),
)
def test_exponential_buckets_lose_no_count(
    scale: int, offset: int, counts: list[int], below: list[int], zeros: int
) -> None:
    sketch = ExponentialHistogram.from_buckets(
        scale=scale,
        zero_count=zeros,
        positive_offset=offset,
        positive_counts=np.array(counts, dtype=np.int64),
        negative_offset=offset,
        negative_counts=np.array(below, dtype=np.int64),
        moments=Moments(),
    )
    assert sketch.total == sum(counts) + sum(below) + zeros
    assert (np.diff(sketch.ordinals) > 0).all()
    assert (sketch.counts > 0).all()
    coarse = sketch.at_scale(-10)
    expected: dict[int, int] = {}
    for sign, numbers_ in ((1, counts), (-1, below)):
        for index, count in enumerate(numbers_, start=offset):
            ordinal = sign * ((index >> (scale + 10)) + BIAS)
            expected[ordinal] = expected.get(ordinal, 0) + count
    expected[0] = zeros
    filled = {key: count for key, count in expected.items() if count}
    assert dict(zip(coarse.ordinals.tolist(), coarse.counts.tolist(), strict=True)) == filled


def attribute(key: str, size_bytes: int) -> tuple[str, str]:
    """An attribute of so many bytes on the wire."""
    pair = KeyValue(key=key)
    pair.value.string_value = "x" * size_bytes
    excess_bytes = pair.ByteSize() - size_bytes
    return key, "x" * (size_bytes - excess_bytes)


@pytest.mark.parametrize(
    ("size_bytes", "outcome"),
    [(2**16 - 2, {}), (2**16 - 1, {"attributes_too_large": 1}), (2**20, {"attributes_too_large": 1})],
)
def test_the_attributes_of_a_point_have_a_limit(size_bytes: int, outcome: dict[str, int]) -> None:
    attributes = dict([attribute("comment", size_bytes)])
    resource = {"ml.model.name": "m"}
    decoded = decode_metrics(request("ml.predictions", "sum", counter(1), attributes=attributes, resource=resource))
    assert (decoded.accepted, dict(decoded.faults)) == (0 if outcome else 1, outcome)


def test_attributes_without_number_are_rejected_before_they_are_read() -> None:
    message = request("ml.predictions", "sum", counter(1), points=2)
    point = message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
    for _ in range(50_000):
        point.attributes.add()
    decoded = decode_metrics(message)
    assert (decoded.accepted, dict(decoded.faults)) == (1, {"attributes_too_large": 1})


def test_resource_and_scope_that_are_too_large_reject_their_points_alone() -> None:
    large = request("ml.predictions", "sum", counter(1), points=3, resource=dict([attribute("comment", 2**16)]))
    other = large.resource_metrics[0].scope_metrics[0].metrics.add(name="http.server.duration")
    other.sum.data_points.add()
    large.MergeFrom(predictions())
    decoded = decode_metrics(large)
    assert (decoded.accepted, decoded.ignored, dict(decoded.faults)) == (1, 1, {"attributes_too_large": 3})


@pytest.mark.parametrize(
    "key", ["ml.model.name", "ml.model.version", "deployment.environment.name", "ml.feature.name", "ml.feature.value"]
)
@pytest.mark.parametrize(("length", "outcome"), [(2_048, {}), (2_049, {"name_too_long": 1})])
def test_names_that_are_kept_have_a_limit(key: str, length: int, outcome: dict[str, int]) -> None:
    attributes = {"ml.model.name": "m", "ml.feature.name": "country", "ml.feature.value": "IS", key: "ü" * length}
    decoded = decode_metrics(request("ml.input.category", "sum", counter(1), attributes=attributes))
    assert (decoded.accepted, dict(decoded.faults)) == (0 if outcome else 1, outcome)


def test_long_attributes_and_bounds_are_not_remembered() -> None:
    decode_metrics(predictions())
    before_bytes = identities._CACHE.size_bytes
    for number in range(50):
        attributes = dict([("ml.model.name", "fraud"), attribute(f"comment-{number}", 5_000)])
        assert decode_metrics(request("ml.predictions", "sum", counter(1), attributes=attributes)).accepted == 1
    assert identities._CACHE.size_bytes == before_bytes
    interned = sketches._intern_bounds.cache_info().currsize
    for number in range(3):
        fill = histogram([float(number + bound) for bound in range(9_999)], [0] * 10_000)
        assert decode_metrics(request("ml.inference.duration", "histogram", fill)).accepted == 1
    assert sketches._intern_bounds.cache_info().currsize == interned
