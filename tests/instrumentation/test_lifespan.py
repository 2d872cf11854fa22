from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import otel_mlmon
from otel_mlmon.testing import capture
from tests.support import models


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers its lifespan, and echoes a request."""
    if scope["type"] == "lifespan":
        while (kind := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": f"{kind}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})


def run(wrapped: Any, scope: Any, messages: list[str]) -> list[Any]:
    """The messages that the application sent, and how many calls waited just then."""
    received = iter(messages)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": next(received)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(wrapped(scope, receive, send))
    return sent


def test_everything_is_exported_before_the_server_hears_of_the_end() -> None:
    with capture(flush_interval_s=60.0) as captured:
        session = ort.InferenceSession(models.softmax())
        captured.handle.flush(5)
        session.run(None, {"input": np.zeros((1, 4), np.float32)})
        wrapped = otel_mlmon.flush_on_shutdown(application)
        sent = run(wrapped, {"type": "lifespan"}, ["lifespan.startup", "lifespan.shutdown"])
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert captured.handle.status().recorded_calls == 1
        assert len([span for span in captured.spans if span.name.startswith("predict")]) == 1


def test_requests_pass_and_without_instrumentation_nothing_happens() -> None:
    wrapped = otel_mlmon.flush_on_shutdown(application)
    assert run(wrapped, {"type": "http"}, []) == ["http.response.start"]
    assert run(wrapped, {"type": "lifespan"}, ["lifespan.shutdown"]) == ["lifespan.shutdown.complete"]


def test_an_application_without_lifespan_refuses_it_as_before() -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    with pytest.raises(AssertionError):
        run(otel_mlmon.flush_on_shutdown(plain), {"type": "lifespan"}, [])
