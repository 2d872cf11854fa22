"""`/healthz`: the process answers. `/readyz`: it takes telemetry; 503 while it does not."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def routes(ready: Callable[[], bool]) -> list[Route]:
    """Both routes.

    Args:
        ready: Whether the receivers listen and the state is loaded.
    """

    def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    def readyz(_: Request) -> JSONResponse:
        if ready():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not ready"}, status_code=503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
