"""Checks the administrator's token of requests that change something, `Authorization: Bearer …` (RFC 6750)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from otel_mlmon.processor.connections import has_bearer_token


def refuse_unauthorized(request: Request, token: str | None) -> JSONResponse | None:
    """Returns the error response to a request without the administrator's token; None if it has the token.

    The tokens are compared in constant time, and no answer repeats either.

    Args:
        request: The request.
        token: `web.admin_token`; None if none is configured, so that nothing can be changed.
    """
    if token is None:
        message = "This processor has no administrator: set web.admin_token in its configuration, and start it again."
        return JSONResponse({"error": message, "reason": "no_admin_token"}, status_code=403)
    authorization = request.headers.get("authorization", "")
    if has_bearer_token(authorization, token):
        return None
    is_bearer = authorization.partition(" ")[0].lower() == "bearer"
    message = (
        "The token is not that of web.admin_token. Send that one as `Authorization: Bearer TOKEN`."
        if is_bearer
        else "This needs the token of web.admin_token, sent as `Authorization: Bearer TOKEN`."
    )
    challenge = 'Bearer realm="otel-mlmon"' + (', error="invalid_token"' if is_bearer else "")
    return JSONResponse(
        {"error": message, "reason": "unauthorized"}, status_code=401, headers={"WWW-Authenticate": challenge}
    )
