"""Serves the processor's results: JSON (`/api/v1/…`), `/metrics`, health and the page that people look at.

`POST /api/v1/relearn/{id}` and silences (`silences.py`) change something, with the administrator's token.
Answers may not be cached; errors are JSON too. Numbers that are not finite are null, since JSON has none. No
cross-origin header is sent, so that a page of another origin cannot read the answers.
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
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otel_mlmon.guard import guard
from otel_mlmon.processor.serve import health
from otel_mlmon.processor.serve.access import AccessControl, WebAccess
from otel_mlmon.processor.serve.authorization import refuse_unauthorized
from otel_mlmon.processor.serve.openapi import PATH, create_openapi_document
from otel_mlmon.processor.serve.page.history import PageHistory
from otel_mlmon.processor.serve.page.routes import WebPage
from otel_mlmon.processor.serve.prometheus import CONTENT_TYPE
from otel_mlmon.processor.serve.references import References, find_reference, relearn_references
from otel_mlmon.processor.serve.silences import SilenceControl
from otel_mlmon.types import ModelKey
from otel_mlmon.version import __version__

Overview: TypeAlias = dict[str, Any]
"""`{"models": {id: {…}}, "alerts": [{…}, …]}`, made of JSON values."""

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
    metrics: Callable[[], bytes],
    is_ready: Callable[[], bool],
    references: Callable[[], References],
    *,
    relearn: Callable[[ModelKey, tuple[str, ...]], None],
    access: Callable[[], WebAccess] = WebAccess,
    silences: SilenceControl | None = None,
    setup: Callable[[], dict[str, Any]] = dict,
    history: PageHistory | None = None,
) -> Starlette:
    """Creates the ASGI application of the web port: JSON API, Prometheus metrics, health checks and web pages.

    Args:
        read: Returns the present overview. Like the others it runs on a thread of the server's pool and may wait.
        metrics: Renders the page for Prometheus.
        is_ready: Returns whether telemetry is accepted.
        references: Returns the references of all models.
        relearn: Has references of a model learned again; returns when that is stored.
        access: Returns what a request must bring, at that moment.
        silences: Answers what is asked about silences; None if there are none.
        setup: Returns how the processor is set up, and what has arrived.
        history: What the overviews said before, for the page.
    """

    def models(_: Request) -> Response:
        return _answer_document(lambda: {"models": read()["models"]})

    def model(request: Request) -> Response:
        model_id, version = request.path_params["id"], request.query_params.get("version")
        subject = f"model {model_id!r}" if version is None else f"version {version!r} of a model {model_id!r}"
        return _answer_document(
            lambda: _find_model_document(read(), model_id, version), missing_message=f"There is no {subject}."
        )

    def reference(request: Request) -> Response:
        model_id, query = request.path_params["id"], request.query_params
        with guard("serve.api"):
            is_partial = query.get("partial") == "true"
            status, document = find_reference(references(), model_id, query.get("version"), is_partial=is_partial)
            return JSONResponse(document, status_code=status)
        return _build_error_response(503, "The processor failed to read its state; try again.")

    def relearn_model(request: Request) -> Response:
        refusal = refuse_unauthorized(request, access().admin_token)
        if refusal is not None:
            return refusal
        model_id, query = request.path_params["id"], request.query_params
        with guard("serve.api"):
            status, document = relearn_references(
                references(), model_id, query.get("version"), query.getlist("stream"), relearn
            )
            return JSONResponse(document, status_code=status)
        return _build_error_response(503, "The processor failed to store it; try again.")

    def alerts(_: Request) -> Response:
        return _answer_document(lambda: {"alerts": read()["alerts"]})

    def prometheus(_: Request) -> Response:
        with guard("serve.api"):
            return Response(metrics(), media_type=CONTENT_TYPE)
        return _build_error_response(503, "The processor failed to read its metrics; try again.")

    routes: list[BaseRoute] = []

    def openapi(_: Request) -> Response:
        return _answer_document(lambda: create_openapi_document(routes, version=__version__))

    routes.extend(
        [
            Route("/api/v1/models", models),
            Route("/api/v1/models/{id:path}", model),
            Route("/api/v1/references/{id:path}", reference),
            Route("/api/v1/relearn/{id:path}", relearn_model, methods=["POST"]),
            Route("/api/v1/alerts", alerts),
            *(silences.routes(access) if silences is not None else ()),
            Route("/api/v1/setup", lambda _: _answer_document(setup)),
            Route(PATH, openapi),
            Route("/metrics", prometheus),
            *health.create_health_routes(is_ready),
            *WebPage(read, setup, history or PageHistory()).create_routes(),
        ]
    )
    return Starlette(
        routes=routes,
        middleware=[Middleware(_SecurityHeaders), Middleware(AccessControl, access=access)],
        exception_handlers={HTTPException: _handle_http_error},
    )


def _find_model_document(overview: Overview, model_id: str, version: str | None) -> dict[str, Any] | None:
    """Returns the JSON document of a model: of the named version, or of the one that was updated last."""
    latest: dict[str, Any] | None = overview["models"].get(model_id)
    if latest is None or version is None:
        return latest
    document = overview["versions"][model_id].get(version)
    return {**document, "versions": latest["versions"]} if document is not None else None


def _answer_document(read: Callable[[], Any], *, missing_message: str = "") -> Response:
    with guard("serve.api"):
        document = read()
        return (
            _build_error_response(404, missing_message)
            if document is None
            else JSONResponse(_replace_infinite_numbers(document))
        )
    return _build_error_response(503, "The processor failed to read its state; try again.")


def _build_error_response(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)


async def _handle_http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    methods = (headers or {}).get("Allow", "GET, HEAD")
    messages = {404: "There is no such path.", 405: f"This path takes {methods} only."}
    return JSONResponse({"error": messages.get(status, "The request failed.")}, status_code=status, headers=headers)


def _replace_infinite_numbers(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_infinite_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_infinite_numbers(item) for item in value]
    return value


class _SecurityHeaders:
    """An ASGI middleware that adds `SECURITY_HEADERS` to every response, including errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
