"""Encodes OTLP responses: of success, and of failure with the delay after which to try again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_mlmon.processor.receive.codec import BodyFormat, Signal
from otel_mlmon.processor.receive.outcomes import ExportResult

_RESPONSES: Final[Mapping[str, tuple[Any, str]]] = {
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
}


def encode_response(signal: Signal, result: ExportResult, body_format: BodyFormat = "protobuf") -> bytes:
    """Encodes the OTLP export response of a signal; full success has no `partial_success`."""
    kind, rejected = _RESPONSES[signal]
    is_partial = bool(result.rejected or result.message)
    if body_format == "json":
        words = rejected.split("_")
        key = words[0] + "".join(map(str.capitalize, words[1:]))
        # A 64-bit number is text in the JSON of protobuf.
        partial = {key: str(result.rejected), "errorMessage": result.message}
        return json.dumps({"partialSuccess": partial} if is_partial else {}).encode()
    if not is_partial:
        return b""
    message = kind()
    setattr(message.partial_success, rejected, result.rejected)
    message.partial_success.error_message = result.message
    serialized: bytes = message.SerializeToString()
    return serialized


def encode_retry_info(delay_s: float) -> bytes:
    """Encodes a `google.rpc.RetryInfo`, the delay after which a sender may try again."""
    serialized: bytes = _build_retry_info(delay_s).SerializeToString()
    return serialized


def encode_status(
    code: int, message: str, *, retry_after_s: float | None = None, body_format: BodyFormat = "protobuf"
) -> bytes:
    """Encodes a `google.rpc.Status`, with a RetryInfo where the request may be sent again."""
    if body_format == "json":
        status: dict[str, Any] = {"code": code, "message": message}
        if retry_after_s is not None:
            kind = "type.googleapis.com/google.rpc.RetryInfo"
            status["details"] = [{"@type": kind, "retryDelay": f"{retry_after_s:.3f}s"}]
        return json.dumps(status).encode()
    details = []
    if retry_after_s is not None:
        detail = AnyMessage()
        detail.Pack(_build_retry_info(retry_after_s))
        details.append(detail)
    serialized: bytes = Status(code=code, message=message, details=details).SerializeToString()
    return serialized


def _build_retry_info(delay_s: float) -> Any:
    seconds = math.floor(delay_s)
    return RetryInfo(retry_delay=Duration(seconds=seconds, nanos=round((delay_s - seconds) * 1e9)))
