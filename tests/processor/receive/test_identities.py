"""The series of a sender's next request are found by the bytes of its points, in memory that has a limit."""

from __future__ import annotations

import tracemalloc

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.processor.receive import identities
from otel_mlmon.processor.receive.data_point import PointGroup, PointIdentity
from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.processor.receive.identities import IdentityRun, SeriesLayout
from otel_mlmon.types import ModelKey
from tests.processor.receive.test_decode_oracle import facts, set_attributes
from tests.support.plain_decode import decode_plainly


def build_request(names: list[str], *, service: str, time_ns: int = 10) -> ExportMetricsServiceRequest:
    """One sender's histograms of features, each of one value."""
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    set_attributes(resource.resource.attributes, [("service.name", service)])
    metric = resource.scope_metrics.add().metrics.add(name=semconv.FEATURE.name)
    metric.exponential_histogram.aggregation_temporality = 1
    for name in names:
        point = metric.exponential_histogram.data_points.add(start_time_unix_nano=1, time_unix_nano=time_ns, count=1)
        point.sum = 1.5
        point.positive.bucket_counts.append(1)
        set_attributes(point.attributes, [(semconv.MODEL_NAME, "m"), (semconv.FEATURE_NAME, name)])
    return message


def decode_group(message: ExportMetricsServiceRequest) -> PointGroup:
    decoded = decode_metrics(message)
    assert facts(decoded) == facts(decode_plainly(message))
    (group,) = decoded.items
    assert isinstance(group, PointGroup)
    return group


def build_identity(model: str) -> PointIdentity:
    return PointIdentity(model=ModelKey(model), metric="ml.predictions", key="", category="", sender="s", series=model)


def test_the_same_series_in_the_same_order_have_the_same_identities_as_before() -> None:
    first = decode_group(build_request(["a", "b", "c"], service="order"))
    again = decode_group(build_request(["a", "b", "c"], service="order", time_ns=20))
    assert (again.identities is first.identities, again.time_ns) == (True, 20)
    for names in (["b", "a", "c"], ["a", "b"], ["a", "b", "c", "d"], ["a", "b", "cc"], ["a"]):
        other = decode_group(build_request(names, service="order"))
        assert [identity.key for identity in other.identities] == names
    assert decode_group(build_request(["a"], service="other")).identities[0].sender != first.identities[0].sender


def test_a_layout_has_a_run_for_successive_points_about_a_model() -> None:
    one, two = build_identity("one"), build_identity("two")
    layout = SeriesLayout.from_points([b"a\x11", b"bc\x11", b"\x11", b"d\x11"], [one, one, two, one])
    assert layout.positions.tolist() == [1, 2, 0, 1]
    assert layout.runs == [IdentityRun(0, 2, (one, one)), IdentityRun(2, 3, (two,)), IdentityRun(3, 4, (one,))]
    assert layout.fits([b"a\x11.", b"bc\x11", b"\x11..", b"d\x11."])
    assert not layout.fits([b"a\x11.", b"bc\x19", b"\x11..", b"d\x11."])
    assert not layout.fits([b"a\x11.", b"bc\x11", b"\x11.."])
    unknown = SeriesLayout.from_points([b"a\x11", b"point"], [one, None])
    assert (unknown.positions.tolist(), unknown.runs) == ([1, 5], [])


def test_what_layouts_take_is_counted_once_however_often_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"f{number}" for number in range(30)]
    decode_group(build_request(names, service="counted"))
    decode_group(build_request(names[::-1], service="counted"))
    size_bytes = identities._CACHE.size_bytes
    for turn in range(50):
        decode_group(build_request(names[:: 1 if turn % 2 == 0 else -1], service="counted"))
    assert identities._CACHE.size_bytes == size_bytes
    decode_group(build_request(names[:1], service="counted"))
    assert identities._CACHE.size_bytes < size_bytes - 29 * 64
    monkeypatch.setattr(identities, "MAX_CACHED_BYTES", 8_000)
    for number in range(20):
        decode_group(build_request(names[: number % 7 + 1], service=f"counted-{number}"))
        assert 0 <= identities._CACHE.size_bytes <= 8_000


@pytest.mark.parametrize("points", [1, 2, 30])
def test_what_is_remembered_of_many_senders_takes_no_more_memory_than_is_counted(points: int) -> None:
    names = [f"f{number}" for number in range(points)]
    requests = [build_request(names, service=f"memory-{points}-{number}") for number in range(200)]
    decode_metrics(requests[0])
    size_bytes = identities._CACHE.size_bytes
    tracemalloc.start()
    try:
        for request in requests[1:]:
            decode_metrics(request)
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < taken_bytes <= identities._CACHE.size_bytes - size_bytes


def test_long_attributes_are_in_no_layout() -> None:
    decode_group(build_request(["short"], service="long"))
    size_bytes = identities._CACHE.size_bytes
    message = build_request(["short", "long"], service="long")
    points = message.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points
    set_attributes(points[1].attributes, [("comment", "c" * 5_000)])
    for _ in range(3):
        assert [identity.key for identity in decode_group(message).identities] == ["short", "long"]
    assert identities._CACHE.size_bytes == size_bytes
