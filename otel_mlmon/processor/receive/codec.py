"""Parses OTLP requests of each signal, in protobuf or JSON, and decodes them into data points and events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.decode import DecodedRequest, MetricsRequest, count_points, decode_metrics
from otel_mlmon.processor.receive.decode_logs import count_records, decode_logs
from otel_mlmon.processor.receive.json import read_json

Signal: TypeAlias = Literal["metrics", "logs", "traces"]
BodyFormat: TypeAlias = Literal["protobuf", "json"]


class SignalCodec(NamedTuple):
    """How the OTLP requests of one signal are parsed and decoded, and counted where decoding fails."""

    request: Any
    """The class of a request in protobuf."""
    json_request: Any
    """The class of a request in JSON."""
    decode: Callable[[Any], DecodedRequest]
    count: Callable[[Any], int]


def parse_request(signal: Signal, body: bytes, body_format: BodyFormat) -> Any:
    """Parses the body of an OTLP request into the protobuf message of its signal.

    Raises:
        MalformedError: `body` is not a request of this signal.
    """
    codec = CODECS[signal]
    if body_format == "json":
        try:
            return read_json(codec.json_request(), body)
        except MalformedError as error:
            raise MalformedError(f"The body is not an OTLP {signal} request in JSON: {error}.") from None
    try:
        return codec.request.FromString(body)
    except DecodeError:
        raise MalformedError(f"The body is not an OTLP {signal} request in protobuf.") from None


def _decode_traces(request: ExportTraceServiceRequest) -> DecodedRequest:
    return DecodedRequest(unused=_count_spans(request))


def _count_spans(request: ExportTraceServiceRequest) -> int:
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


CODECS: Final[Mapping[Signal, SignalCodec]] = {
    "metrics": SignalCodec(MetricsRequest, ExportMetricsServiceRequest, decode_metrics, count_points),
    "logs": SignalCodec(ExportLogsServiceRequest, ExportLogsServiceRequest, decode_logs, count_records),
    "traces": SignalCodec(ExportTraceServiceRequest, ExportTraceServiceRequest, _decode_traces, _count_spans),
}
"""How the requests of each signal are read."""
