"""Parses metrics requests with their points left as bytes, and reads exponential histograms from these bytes.

They are read where they are laid out as exporters do it: one field after the other, each once, in the order of their
numbers. It takes a third of what a message takes. Any other layout, exemplars and flags, and whatever breaks a rule, is
left to the message.

Source: opentelemetry-proto, metrics.proto; protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint
from opentelemetry.proto.resource.v1 import resource_pb2

from otel_mlmon.errors import MalformedError

MAX_TIME_NS: Final = 2**63 - 1
"""The latest time of a point."""

MAX_COUNT: Final = 2**53
"""The largest count that is exact as a float."""

MAX_TABLE_BUCKETS: Final = 1 << 18
"""The buckets after which a table is full: a request of 64 MiB, a byte each, would take gigabytes at once."""


def _build_request_class(*, has_encoded_points: bool) -> Any:
    """Builds a protobuf class for metrics requests whose points keep their attributes as bytes.

    An embedded message and bytes are the same on the wire. What is left as bytes costs nothing to parse, and the bytes
    of a series that was seen before tell all that its attributes would. Everything else is as in OTLP's own classes.
    Source: protobuf.dev/programming-guides/encoding (length-delimited records).

    Args:
        has_encoded_points: Whether the points of exponential histograms are bytes too.
    """
    pool = DescriptorPool()
    for module in (common_pb2, resource_pb2, metrics_pb2, metrics_service_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type if module is metrics_pb2 else ():
            encoded = "attributes" if message.name.endswith("DataPoint") else ""
            if has_encoded_points and message.name == "ExponentialHistogram":
                encoded = "data_points"
            for part in message.field:
                if part.name == encoded:
                    part.type = FieldDescriptorProto.TYPE_BYTES
                    part.ClearField("type_name")
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(ExportMetricsServiceRequest.DESCRIPTOR.full_name))


MetricsRequest: Final = _build_request_class(has_encoded_points=True)
"""A metrics request whose points have their attributes as bytes; those of exponential histograms are bytes."""

ParsedMetricsRequest: Final = _build_request_class(has_encoded_points=False)
"""The same with messages for all points: what it would take in memory is the most that decoding takes at any time."""

_ExponentialPoint: Final = GetMessageClass(
    ParsedMetricsRequest.DESCRIPTOR.file.pool.FindMessageTypeByName(ExponentialHistogramDataPoint.DESCRIPTOR.full_name)
)


def parse_exponential_point(point: bytes) -> Any:
    """Parses the protobuf message of an exponential histogram's point.

    Raises:
        MalformedError: It is none.
    """
    try:
        return _ExponentialPoint.FromString(point)
    except DecodeError:
        raise MalformedError("A point of an exponential histogram is not one in protobuf.") from None


def limit_extremes(minimum: float, maximum: float) -> tuple[float, float]:
    """Returns a histogram's minimum and maximum; +inf and -inf where they are infinite, NaN or out of order."""
    if not minimum <= maximum:  # NaN, or in the wrong order
        return math.inf, -math.inf
    return (minimum if minimum != -math.inf else math.inf), (maximum if maximum != math.inf else -math.inf)


def find_count_faults(numbers: Sequence[int], held: Sequence[int]) -> dict[int, str]:
    """Finds the rows of a table of sketches whose buckets do not hold as many values as stated, each with a reason.

    Args:
        numbers: How many values each row says to have.
        held: How many its buckets hold.
    """
    if held == numbers and max(numbers) <= MAX_COUNT:
        return {}
    faults = {row: find_count_fault(*counts) for row, counts in enumerate(zip(numbers, held, strict=True))}
    return {row: reason for row, reason in faults.items() if reason}


def find_count_fault(count: int, total: int) -> str:
    """Returns why a histogram that states `count` values and holds `total` is rejected; empty if it is valid."""
    if count != total:
        return "count_mismatch"
    return "too_large" if count > MAX_COUNT else ""
