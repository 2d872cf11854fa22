"""A refused request leaves nothing behind: what only the garbage collector frees would fill memory under overload."""

from __future__ import annotations

import gc
import http.client
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from otel_mlmon.errors import MalformedError, OverloadedError, RetryableError
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.data_point import DataPoint, Rejections, TelemetryItem
from otel_mlmon.processor.receive.grpc import GrpcReceiver
from otel_mlmon.processor.receive.http import HttpReceiver, RequestRefusedError
from otel_mlmon.processor.state.thread import ClockWork, StateThread
from tests.support.otlp_requests import predictions
from tests.support.processes import until

Items = tuple[TelemetryItem, ...]
METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
REQUESTS = 20


class FullState:
    """A state without room for anything."""

    def open(self) -> None:
        """There is nothing to load."""

    def apply(self, _: Items, /) -> Rejections:
        """Refuses a request."""
        raise OverloadedError("There is no room.", retry_after_s=1.0)

    def advance(self, _: float = math.inf, /) -> ClockWork:
        """There is nothing to do."""
        return ClockWork()

    def commit(self) -> None:
        """There is nothing to store."""

    def publish(self, *, is_busy: bool) -> None:
        """There is nothing to publish."""

    def close(self) -> None:
        """There is nothing to close."""


@contextmanager
def admit(**options: Any) -> Iterator[RequestAdmission]:
    """Admits requests to a state without room."""
    state: StateThread[Items, Rejections] = StateThread(FullState(), commit_interval_s=0.0)
    state.start()
    yield RequestAdmission(lambda items, max_wait_s: state.submit(items, max_wait_s=max_wait_s), **options)
    assert state.shutdown(10)


@contextmanager
def send_over_http(admission: RequestAdmission) -> Iterator[Callable[[bytes], str]]:
    receiver = HttpReceiver(admission, "127.0.0.1:0")
    address = receiver.start()

    def send(body: bytes) -> str:
        connection = http.client.HTTPConnection(address, timeout=30)
        connection.request("POST", "/v1/metrics", body, {"content-type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return {429: "refused", 400: "malformed"}.get(answer.status, str(answer.status))

    yield send
    receiver.stop(1.0)


@contextmanager
def send_over_grpc(admission: RequestAdmission) -> Iterator[Callable[[bytes], str]]:
    receiver = GrpcReceiver(admission, "127.0.0.1:0")
    channel = grpc.insecure_channel(receiver.start())
    export = channel.unary_unary(METHOD)

    def send(body: bytes) -> str:
        with pytest.raises(grpc.RpcError) as error:
            export(body, timeout=30)
        code: Any = error.value
        names = {grpc.StatusCode.RESOURCE_EXHAUSTED: "refused", grpc.StatusCode.INVALID_ARGUMENT: "malformed"}
        return names.get(code.code(), str(code.code()))

    yield send
    channel.close()
    receiver.stop(1.0)


def list_remains() -> list[str]:
    """The names of the types of what requests left behind."""
    kinds = (RetryableError, MalformedError, RequestRefusedError, DataPoint)
    return [type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds)]


@pytest.mark.parametrize("sender", [send_over_http, send_over_grpc])
@pytest.mark.parametrize(
    ("options", "body", "status"),
    [
        ({}, None, "refused"),
        ({"has_room": lambda: False}, None, "refused"),
        ({}, b"\xff", "malformed"),
    ],
)
def test_a_refused_request_leaves_nothing_for_the_garbage_collector(
    sender: Any, options: dict[str, Any], body: bytes | None, status: str
) -> None:
    bodies = [body or predictions(points=2 + number).SerializeToString() for number in range(REQUESTS)]
    with admit(**options) as admission, sender(admission) as send:
        send(bodies[0])
        gc.collect()
        gc.disable()
        try:
            before = len(list_remains())
            assert {send(body) for body in bodies} == {status}
            until(
                lambda: len(list_remains()) <= before, what="nothing is left"
            )  # the last answer's thread lets go of it
        finally:
            gc.enable()
