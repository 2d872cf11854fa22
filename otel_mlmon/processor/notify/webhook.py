"""Alerts as JSON to an address.

The body is `Alert.to_dict()` with `title` and `text` for people. Headers: `Idempotency-Key`, the same for
every attempt of one change of state; with a secret also `X-Mlmon-Timestamp` (Unix seconds) and
`X-Mlmon-Signature`, which is `v1=` and the hex HMAC-SHA256 of timestamp, a full stop and the body, so neither
can be changed nor replayed later. Sources: RFC 9110 (Retry-After, status codes); RFC 2104 (HMAC);
draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.message import render, title
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from otel_mlmon.version import __version__

TRANSIENT: Final = frozenset({408, 425, 429})
"""Client errors that pass; so do all of 500 and above."""


class WebhookNotifier:
    """Posts an alert.

    Args:
        url: http or https. It and the headers may hold secrets: no error names them.
        headers: Sent with each request.
        timeout_s: For connecting, and for each read and write.
        secret: Key of the signature; None sends none.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        secret: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._secret = None if secret is None else secret.encode()
        self._clock = clock
        # Reading the certificates costs 20 ms: once, not each alert.
        self._certificates = httpx.create_ssl_context()

    def notify(self, alert: Alert) -> None:
        """Post `alert`; redirects are not followed, and what is answered is not read."""
        body = body_of(alert)
        headers = {**self._headers, **self._own_headers(alert, body)}
        try:
            with (
                httpx.Client(verify=self._certificates, timeout=self._timeout_s) as client,
                client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                self._judge(response)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise PermanentError(type(error).__name__) from None
        except httpx.TransportError as error:
            raise TransientError(type(error).__name__) from None

    def _own_headers(self, alert: Alert, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"otel-mlmon/{__version__}",
            "Idempotency-Key": idempotency_key(alert),
        }
        if self._secret is not None:
            timestamp = str(int(self._clock()))
            headers["X-Mlmon-Timestamp"] = timestamp
            headers["X-Mlmon-Signature"] = signature(self._secret, timestamp, body)
        return headers

    def _judge(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        status = response.status_code
        if status in TRANSIENT or status >= 500:
            after_s = _retry_after_s(response.headers.get("Retry-After"), self._clock())
            raise TransientError(f"HTTP {status}", retry_after_s=after_s)
        raise PermanentError(f"HTTP {status}")


def body_of(alert: Alert) -> bytes:
    """The JSON document that is posted, UTF-8; the same bytes each time."""
    document = {**alert.to_dict(), "title": title(alert), "text": render(alert)}
    return json.dumps(document, ensure_ascii=False, sort_keys=True).encode()


def idempotency_key(alert: Alert) -> str:
    """One for each change of state."""
    return f"{alert.fingerprint}-{alert.state.name.lower()}-{alert.at_ns}"


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """`v1=` and 64 hex digits; a receiver computes the same and compares in constant time."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds, from a number of them or from a date; None if it is neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.fromtimestamp(now_s, tz=timezone.utc)).total_seconds())
