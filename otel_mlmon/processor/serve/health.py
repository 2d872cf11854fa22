"""Answers health checks: `/healthz` while the process runs, `/readyz` while it accepts telemetry (otherwise 503)."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def create_health_routes(is_ready: Callable[[], bool]) -> list[Route]:
    """Returns the routes of the health checks `/healthz` and `/readyz`.

    Args:
        is_ready: Returns whether telemetry is accepted.
    """

    # Coroutines, so that they do not wait for a thread of the pool behind those who read large documents.
    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> JSONResponse:
        if is_ready():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not ready"}, status_code=503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
