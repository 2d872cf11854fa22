"""What is known, as JSON (`/api/v1/models`, `/api/v1/references/{name}`, `/api/v1/alerts`) and at `/metrics`.

Every answer is read afresh and may not be cached; every fault is JSON too. Numbers that are not finite are
null, since JSON has none. No cross-origin header is sent: a page of another origin cannot read this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_mlmon.guard import guard
from otel_mlmon.processor.serve import health, references
from otel_mlmon.processor.serve.prometheus import CONTENT_TYPE
from otel_mlmon.processor.serve.references import References

Overview: TypeAlias = dict[str, Any]
"""`{"models": {name: {…}}, "alerts": [{…}, …]}`, all of it JSON."""

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(
    read: Callable[[], Overview],
    metrics: Callable[[], str],
    ready: Callable[[], bool],
    known: Callable[[], References],
) -> Starlette:
    """The application.

    Args:
        read: What is known now. Like the others it runs on a thread of the server's pool and may wait.
        metrics: The page for Prometheus.
        ready: Whether telemetry is taken.
        known: The references of every model.
    """

    def models(_: Request) -> Response:
        return _answer(lambda: {"models": read()["models"]})

    def model(request: Request) -> Response:
        name = request.path_params["name"]
        return _answer(lambda: read()["models"].get(name), missing=f"There is no model {name!r}.")

    def reference(request: Request) -> Response:
        name, query = request.path_params["name"], request.query_params
        with guard("web"):
            is_partial = query.get("partial") == "true"
            status, document = references.answer(known(), name, query.get("version"), is_partial=is_partial)
            return JSONResponse(document, status_code=status)
        return _fault(503, "The state cannot be read now.")

    def alerts(_: Request) -> Response:
        return _answer(lambda: {"alerts": read()["alerts"]})

    def prometheus(_: Request) -> Response:
        with guard("web"):
            return Response(metrics(), media_type=CONTENT_TYPE)
        return _fault(503, "The metrics cannot be read now.")

    return Starlette(
        routes=[
            Route("/api/v1/models", models),
            Route("/api/v1/models/{name:path}", model),
            Route("/api/v1/references/{name:path}", reference),
            Route("/api/v1/alerts", alerts),
            Route("/metrics", prometheus),
            *health.routes(ready),
        ],
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={HTTPException: _http_fault},
    )


def _answer(read: Callable[[], Any], *, missing: str = "") -> Response:
    with guard("web"):
        document = read()
        return _fault(404, missing) if document is None else JSONResponse(_finite(document))
    return _fault(503, "The state cannot be read now.")


def _fault(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)


async def _http_fault(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    words = {404: "There is nothing at this path.", 405: "This port is read-only: GET and HEAD are answered."}
    return JSONResponse({"error": words.get(status, "Failed.")}, status_code=status, headers=headers)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(below) for below in value]
    return value


class _SecurityHeaders:
    """Adds `SECURITY_HEADERS` to every answer, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)
