"""A small ASGI service: one inference a request, instrumented when imported; `flushing_app` asks for a flush itself."""

from __future__ import annotations

from typing import Any

import otel_mlmon
from tests.support.serving import predict


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serves one inference a request as an ASGI application with a lifespan."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    predict()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


flushing_app = otel_mlmon.flush_on_shutdown(app)
