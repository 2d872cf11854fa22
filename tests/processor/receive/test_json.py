from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, NumberDataPoint
from opentelemetry.proto_json.collector.metrics.v1.metrics_service import ExportMetricsServiceRequest as OracleRequest

from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.json import read_json_message
from tests.support.otlp_requests import counter, exponential, histogram, request

TRACE = "5B8EFFF798038103D269B633813FC60C"


def test_ids_are_hex_in_either_case_and_other_bytes_base64() -> None:
    ids = {"traceId": TRACE, "spanId": "eee19b7ec3c1b174"}
    text = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [ids]}]}]})
    span = read_json_message(ExportTraceServiceRequest(), text).resource_spans[0].scope_spans[0].spans[0]
    assert (span.trace_id.hex(), span.span_id.hex()) == (TRACE.lower(), "eee19b7ec3c1b174")
    for encoded in ("+/8=", "-_8=", "-_8"):
        assert read_json_message(AnyValue(), f'{{"bytesValue": "{encoded}"}}').bytes_value == b"\xfb\xff"


@pytest.mark.parametrize(
    "value", ['"9007199254740993"', "9007199254740993", '"9007199254740993.0"', '"9.007199254740993e15"']
)
def test_64_bits_are_text_or_a_number(value: str) -> None:
    assert read_json_message(NumberDataPoint(), f'{{"asInt": {value}}}').as_int == 9007199254740993


@pytest.mark.parametrize(
    ("value", "expected"), [("1", 1.0), ('"1.5"', 1.5), ('"Infinity"', math.inf), ('"-Infinity"', -math.inf)]
)
def test_doubles_may_be_text(value: str, expected: float) -> None:
    assert read_json_message(NumberDataPoint(), f'{{"asDouble": {value}}}').as_double == expected


def test_unknown_keys_snake_case_and_null_are_ignored() -> None:
    text = '{"scale": 2, "zero_count": 7, "new": [1], "sum": null, "positive": {}}'
    point = read_json_message(ExponentialHistogramDataPoint(), text)
    assert (point.scale, point.zero_count, point.HasField("sum")) == (2, 0, False)
    assert (point.HasField("positive"), point.HasField("negative")) == (True, False)


def test_an_empty_value_is_a_value_that_is_empty() -> None:
    assert read_json_message(AnyValue(), '{"arrayValue": {}}').WhichOneof("value") == "array_value"
    assert read_json_message(AnyValue(), '{"stringValue": ""}').WhichOneof("value") == "string_value"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "the document: not an object"),
        ('{"resourceMetrics": [1]}', r"resourceMetrics\[0\]: not an object"),
        ('{"resourceMetrics": [{"resource": []}]}', r"resourceMetrics\[0\]\.resource: not an object"),
        ('{"resourceMetrics": [{"schemaUrl": 1}]}', r"resourceMetrics\[0\]\.schemaUrl: 1: not a string"),
        ('{"resourceMetrics": [{"schemaUrl": "\\ud800"}]}', "surrogates not allowed"),
    ],
)
def test_a_wrong_document_is_told_with_its_place(text: str, fault: str) -> None:
    with pytest.raises(MalformedError, match=fault):
        read_json_message(ExportMetricsServiceRequest(), text)


@pytest.mark.parametrize(
    "text",
    [
        '{"asInt": 1.5}',
        '{"asInt": true}',
        '{"asInt": "many"}',
        '{"asInt": 9223372036854775808}',
        '{"asInt": 1e999}',
        '{"asDouble": true}',
        '{"asDouble": "many"}',
        '{"flags": -1}',
        '{"timeUnixNano": []}',
        '{"exemplars": [{"traceId": "xyz"}]}',
        '{"exemplars": [{"traceId": 5}]}',
        '{"exemplars": [{"traceId": "5b 8e"}]}',
        '{"asInt": "1_000"}',
        '{"asInt": " 1"}',
        '{"asInt": "+1"}',
        '{"asInt": "\u0661"}',
        '{"asInt": "0x10"}',
        '{"asInt": ""}',
        '{"asInt": "1.5"}',
        '{"asInt": "1e999"}',
        '{"asDouble": "1_0.0"}',
        '{"asDouble": "nan"}',
        '{"asDouble": "inf"}',
        '{"asDouble": NaN}',
        '{"asDouble": Infinity}',
    ],
)
def test_a_value_of_another_type_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        read_json_message(NumberDataPoint(), text)


def test_the_name_of_an_enumeration_is_refused() -> None:
    text = '{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"sum": {"aggregationTemporality": "DELTA"}}]}]}]}'
    with pytest.raises(MalformedError, match="aggregationTemporality: 'DELTA': not the number of an enumeration"):
        read_json_message(ExportMetricsServiceRequest(), text)


@pytest.mark.parametrize("text", ['{"boolValue": 1}', '{"bytesValue": "!"}', '{"stringValue": 1}'])
def test_attribute_values_are_checked_too(text: str) -> None:
    with pytest.raises(MalformedError):
        read_json_message(AnyValue(), text)


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(("sum", "histogram", "exponential_histogram")),
    count=st.integers(0, 2**53),
    model=st.text(min_size=1, max_size=8),
)
def test_what_has_no_ids_reads_as_protobuf_reads_it(kind: str, count: int, model: str) -> None:
    fills: dict[str, Any] = {
        "sum": counter(count),
        "histogram": histogram([0.5], [count, 1], sum=0.25),
        "exponential_histogram": exponential(2, positive=(3, [count, 1])),
    }
    message = request("ml.metric", kind, fills[kind], attributes={"ml.model.name": model})
    text = json_format.MessageToJson(message, use_integers_for_enums=True)
    assert read_json_message(ExportMetricsServiceRequest(), text) == message


def nested(depth: int) -> str:
    return '{"arrayValue": {"values": [' * depth + "{}" + "]}}" * depth


def test_what_is_nested_deeper_than_protobuf_allows_is_refused_and_not_a_fault_of_ours() -> None:
    assert read_json_message(AnyValue(), nested(40)).WhichOneof("value") == "array_value"
    for depth in (60, 200, 400):
        with pytest.raises(MalformedError, match=r"more than 100 levels deep|not JSON"):
            read_json_message(AnyValue(), nested(depth))


ids = st.binary(min_size=16, max_size=16)
values = st.recursive(
    st.one_of(
        st.builds(AnyValue, string_value=st.text(max_size=6)),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, double_value=st.floats(allow_nan=False)),
        st.builds(AnyValue, bytes_value=st.binary(max_size=6)),
    ),
    lambda inner: st.builds(
        lambda items: AnyValue(array_value=ArrayValue(values=items)), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=100)
@given(
    fill=st.sampled_from((("sum", counter(2**62)), ("histogram", histogram([0.5], [3, 1], sum=0.25, min=0.0))))
    | st.integers(-5, 9).map(lambda scale: ("exponential_histogram", exponential(scale, (-3, [1, 0, 2]), (1, [5]), 7))),
    trace=ids,
    value=values,
)
def test_what_opentelemetry_writes_is_read_as_it_was(fill: tuple[str, Any], trace: bytes, value: AnyValue) -> None:
    message = request("ml.metric", *fill)
    metric = message.resource_metrics[0].scope_metrics[0].metrics[0]
    point = getattr(metric, fill[0]).data_points[0]
    point.attributes.add(key="any").value.CopyFrom(value)
    point.exemplars.add(time_unix_nano=2**63 + 1, as_double=0.5, trace_id=trace, span_id=trace[:8])
    document = json_format.MessageToDict(message, use_integers_for_enums=True)
    for kind in document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0].values():
        for exemplar in kind["dataPoints"][0]["exemplars"] if isinstance(kind, dict) else ():
            exemplar.update(traceId=trace.hex(), spanId=trace[:8].hex())  # base64 in the JSON of protobuf
    text = OracleRequest.from_dict(document).to_json()
    assert read_json_message(ExportMetricsServiceRequest(), text) == message
