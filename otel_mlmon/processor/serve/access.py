"""Decides who may use the web port: the Host header, the token of readers, and the token of the administrator.

A browser that is led to this port under another name (DNS rebinding) is refused by the Host header; an IP address
cannot be rebound. Source: RFC 6750 (Bearer), RFC 7617 (Basic), RFC 9110 (Host).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Paths that probes ask for, by address and without a token."""

_LOOPBACK_NAMES: Final = ("localhost", "*.localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAccess:
    """The host names and tokens with which requests may use the web port."""

    hosts: tuple[str, ...] = ()
    """Names and patterns by which the port may be addressed, besides loopback names and IP addresses."""
    read_token: str | None = None
    """The token of readers; None to ask for none."""
    admin_token: str | None = None
    """The token of the administrator, who may read too; None if nothing may be changed."""

    def allows_host(self, header: str) -> bool:
        """Returns whether the `Host` header of a request names the web port."""
        host = _parse_host_header(header)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            patterns = (*_LOOPBACK_NAMES, *(pattern.lower() for pattern in self.hosts))
            return bool(host) and any(fnmatchcase(host, pattern) for pattern in patterns)
        return True

    def allows_reading(self, authorization: str) -> bool:
        """Returns whether an `Authorization` header carries a token that may read the web port."""
        if self.read_token is None:
            return True
        tokens = [token for token in (self.read_token, self.admin_token) if token is not None]
        credentials = _parse_credentials(authorization)
        return any(hmac.compare_digest(credentials, token.encode()) for token in tokens)


class AccessControl:
    """An ASGI middleware that refuses requests to the web port without a valid host name or read token.

    Args:
        app: What is behind it.
        access: Returns the present rules, which a reload may replace.
    """

    def __init__(self, app: ASGIApp, access: Callable[[], WebAccess]) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request to the web port, or passes it on to the application."""
        refusal = self._find_refusal(Request(scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _find_refusal(self, request: Request) -> JSONResponse | None:
        if request.scope["path"] in OPEN_PATHS:
            return None
        access = self._access()
        if not access.allows_host(request.headers.get("host", "")):
            message = "The Host header names another host: add it to web.hosts if people use this name."
            return JSONResponse({"error": message, "reason": "host"}, status_code=421)
        if request.method in ("GET", "HEAD") and not access.allows_reading(request.headers.get("authorization", "")):
            message = "This needs the token of web.read_token, sent as `Authorization: Bearer TOKEN`."
            headers = {"WWW-Authenticate": 'Bearer realm="otel-mlmon", Basic realm="otel-mlmon"'}
            return JSONResponse({"error": message, "reason": "unauthorized"}, status_code=401, headers=headers)
        return None


def _parse_credentials(authorization: str) -> bytes:
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return text.strip().encode()
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(text.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _parse_host_header(header: str) -> str:
    """Returns the host that a `Host` header names, without port, brackets and a final dot."""
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")
