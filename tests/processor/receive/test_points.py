"""Points keep their order, in as few groups as may be, whatever becomes of each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.processor.receive import encoded, encoded_histograms, points
from otel_mlmon.processor.receive.data_point import DecodedRequest, PointGroup
from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.processor.receive.encoded_histograms import HistogramRows
from otel_mlmon.types import Ints
from tests.processor.receive.test_decode_oracle import facts, set_attributes
from tests.support.plain_decode import decode_plainly


def build_request(models: str, *, service: str = "s") -> ExportMetricsServiceRequest:
    """A request of a histogram for each letter, which is the name of its model."""
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    set_attributes(resource.resource.attributes, [("service.instance.id", service)])
    metric = resource.scope_metrics.add().metrics.add(name=semconv.DURATION.name)
    metric.exponential_histogram.aggregation_temporality = 1
    for number, model in enumerate(models):
        point = metric.exponential_histogram.data_points.add(start_time_unix_nano=1, time_unix_nano=10, count=1)
        point.sum = 1.5
        point.positive.offset = number
        point.positive.bucket_counts.append(1)
        set_attributes(point.attributes, [(semconv.MODEL_NAME, model), ("number", str(number))])
    return message


def describe(decoded: DecodedRequest) -> list[tuple[str, int, int, int]]:
    """The model of each group, how many points it has, their time, and how many have exemplars."""
    groups = [group for group in decoded.items if isinstance(group, PointGroup)]
    return [
        (group.identities[0].model.name, len(group.numbers), group.time_ns, len(group.exemplars)) for group in groups
    ]


@pytest.mark.parametrize(
    ("models", "groups"),
    [
        ("aaaa", [("a", 4, 10, 0)]),
        ("aabba", [("a", 2, 10, 0), ("b", 2, 10, 0), ("a", 1, 10, 0)]),
        ("a" * 100 + "b", [("a", 100, 10, 0), ("b", 1, 10, 0)]),
    ],
)
def test_successive_points_about_a_model_are_one_group(models: str, groups: list[tuple[str, int, int, int]]) -> None:
    message = build_request(models)
    for _ in range(2):
        decoded = decode_metrics(message)
        assert describe(decoded) == groups
        assert facts(decoded) == facts(decode_plainly(message))


def test_points_of_all_ways_keep_their_order() -> None:
    message = build_request("a" * 12)
    data = message.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points
    data[1].count = 2
    data[3].exemplars.add(trace_id=b"\1" * 16, as_double=0.5)
    data[4].exemplars.add(trace_id=b"\2" * 16, as_double=0.5)
    data[4].count = 2
    data[6].ClearField("attributes")
    data[7].flags = 1
    data[9].time_unix_nano = 20
    data[10].start_time_unix_nano = 30
    for _ in range(2):
        decoded = decode_metrics(message)
        assert facts(decoded) == facts(decode_plainly(message))
        assert decoded.faults == {"count_mismatch": 2, "no_model_name": 1, "bad_time": 1}
        assert (decoded.accepted, decoded.ignored) == (7, 1)
        assert describe(decoded) == [
            ("a", 2, 10, 0), ("a", 1, 10, 1), ("a", 2, 10, 0), ("a", 1, 20, 0), ("a", 1, 10, 0)
        ]  # fmt: skip


@pytest.mark.parametrize("layout_points", [1, 7, 40, 64])
@pytest.mark.parametrize("buckets", [1, 10**6])
def test_many_points_are_read_part_by_part(monkeypatch: pytest.MonkeyPatch, layout_points: int, buckets: int) -> None:
    monkeypatch.setattr(points, "MAX_LAYOUT_POINTS", layout_points)
    monkeypatch.setattr(encoded, "MAX_TABLE_BUCKETS", buckets)
    message = build_request("a" * 50 + "b" * 50, service=f"{layout_points} of {buckets}")
    for _ in range(2):
        decoded = decode_metrics(message)
        assert facts(decoded) == facts(decode_plainly(message))
        groups = [group for group in decoded.items if isinstance(group, PointGroup)]
        assert max(len(group.numbers) for group in groups) == min(layout_points, 50)
        parts = -(-100 // layout_points)
        assert len({id(group.table) for group in groups}) == (parts if buckets == 1 else 1)


def test_points_without_bytes_are_read_part_by_part_too(monkeypatch: pytest.MonkeyPatch) -> None:
    read_sizes: list[int] = []

    def read_histograms(part: Sequence[bytes], positions: Ints) -> HistogramRows:
        read_sizes.append(len(part))
        return encoded_histograms.read_histograms(part, positions)

    monkeypatch.setattr(points, "read_histograms", read_histograms)
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name=semconv.DURATION.name)
    metric.exponential_histogram.aggregation_temporality = 1
    for _ in range(10_000):
        metric.exponential_histogram.data_points.add()
    decoded = decode_metrics(message)
    assert (decoded.accepted, decoded.faults) == (0, {"no_time": 10_000})
    assert read_sizes == [4_096, 4_096, 1_808]
