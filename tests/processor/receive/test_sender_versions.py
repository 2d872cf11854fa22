"""Applications and processors of different releases understand each other, either way."""

from __future__ import annotations

import logging
from concurrent.futures import Future

import pytest

from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.codec import parse_request
from otel_mlmon.processor.receive.data_point import Rejections, TelemetryItem
from otel_mlmon.processor.receive.sender_versions import MAX_VERSIONS, SenderVersions, parse_release
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.version import __version__
from tests.support.observations import list_points
from tests.support.otlp_requests import counter, predictions, request

LATER = "99.1.0"
EARLIER = "0.0.9"


class Store:
    """Takes what is delivered."""

    def __init__(self) -> None:
        self.items: list[TelemetryItem] = []

    def deliver(self, items: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        self.items += items
        done: Future[Rejections] = Future()
        done.set_result({})
        return done


def of_release(version: str, *, points: int = 1) -> bytes:
    message = predictions(points=points)
    message.resource_metrics[0].scope_metrics[0].scope.version = version
    message.resource_metrics[0].scope_metrics[0].scope.name = "otel_mlmon"
    return bytes(message.SerializeToString())


def test_a_later_release_is_said_once_and_an_earlier_one_or_the_same_is_not(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    admission = RequestAdmission(store.deliver)
    with caplog.at_level(logging.WARNING, logger="otel_mlmon.receiver"):
        for version in (EARLIER, __version__, LATER, LATER, "", "main"):
            assert admission.consume_request("metrics", of_release(version)).result(30).rejected == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"Applications use otel_mlmon {LATER}, and this processor is {__version__}: what is new in theirs is ignored "
        "and counted as such, everything else is monitored. Update the processor."
    ]
    assert (len(list_points(store.items)), admission.read_counts.accepted) == (5, 6)  # the same bytes come twice


def test_what_a_later_release_sends_anew_is_ignored_and_counted_and_all_else_is_monitored() -> None:
    store = Store()
    admission = RequestAdmission(store.deliver)
    message = predictions(4, points=2)
    scope = message.resource_metrics[0].scope_metrics[0]
    scope.scope.name, scope.scope.version, scope.schema_url = "otel_mlmon", LATER, "https://example.org/schemas/99"
    for point in scope.metrics[0].sum.data_points:
        point.attributes.add(key="ml.prediction.mood").value.string_value = "new"
    for name in ("ml.prediction.mood", "ml.input.colour"):
        scope.metrics.add(name=name).CopyFrom(scope.metrics[0])
        scope.metrics[-1].name = name
    result = admission.consume_request("metrics", message.SerializeToString()).result(30)
    counts = admission.read_counts
    assert (result.rejected, counts.accepted, counts.ignored) == (0, 2, 4)
    points = list_points(store.items)
    assert {(point.identity.model.name, point.identity.metric, point.identity.key) for point in points} == {
        ("fraud", "ml.predictions", "spam")
    }


def test_series_that_differ_in_an_attribute_of_a_later_release_are_one_stream() -> None:
    with SimulatedProcessor() as simulated:
        for mood in ("calm", "wild"):
            message = predictions(5)
            point = message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
            point.attributes.add(key="ml.prediction.mood").value.string_value = mood
            point.start_time_unix_nano, point.time_unix_nano = simulated.now_ns - 10**9, simulated.now_ns
            simulated.receive(message)
        simulated.now_ns += 60 * 10**9
        simulated.advance()
        (model,) = simulated.document()["models"].values()
    assert model["predictions"] == 10
    assert [stream["stream"] for stream in model["streams"]] == ["prediction.label"]


def test_what_an_earlier_release_does_not_send_is_not_missed() -> None:
    store = Store()
    admission = RequestAdmission(store.deliver)
    # No version of the model, no instance id, no scope version: as the first release sent it.
    body = request("ml.predictions", "sum", counter(3), attributes={"ml.model.name": "fraud"}).SerializeToString()
    assert admission.consume_request("metrics", body).result(30).rejected == 0
    (point,) = list_points(store.items)
    assert (point.identity.model.version, point.identity.key, point.value.sketch) == ("", "", 3)


def test_versions_that_are_made_up_take_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    versions = SenderVersions("1.2.3")
    for number in range(100):
        message = predictions()
        message.resource_metrics[0].scope_metrics[0].scope.name = "otel_mlmon"
        message.resource_metrics[0].scope_metrics[0].scope.version = f"9.{number}"
        versions.warn_of_version(message)
    assert len(caplog.records) == len(versions._checked) == MAX_VERSIONS


def test_a_long_version_is_cut_and_cannot_break_the_line(caplog: pytest.LogCaptureFixture) -> None:
    SenderVersions("1.2.3").warn_of_version(
        parse_request("metrics", of_release("9.1+\nforged" + "x" * 10**6), "protobuf")
    )
    (record,) = caplog.records
    assert "otel_mlmon 9.1+?forged" in record.getMessage()
    assert len(record.getMessage()) < 400


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("0.1.0.dev0", (0, 1)),
        ("1.2", (1, 2)),
        ("1.2.3", (1, 2)),
        ("1.2rc1", (1, 2)),
        ("1.2+local", (1, 2)),
        ("", None),
        ("one", None),
        ("1", None),
        ("1.2.x" * 1000, (1, 2)),
        ("9" * 5000, None),
    ],
)
def test_a_release_is_read_from_a_version(text: str, release: tuple[int, int] | None) -> None:
    assert parse_release(text) == release
