"""Posts alerts as JSON to an address.

The body is `Alert.to_dict()` with the keys `subject` and `text` for people. Headers: `Idempotency-Key`, the same for
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
from typing import Any, ClassVar, Final

import httpx
from pydantic import Field, SecretStr

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.message import format_alert, format_title
from otel_mlmon.processor.config.section import Duration, Section, Url
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from otel_mlmon.version import __version__

TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})
"""Client errors after which another attempt may succeed; it may too after all of 500 and above."""


class WebhookSection(Section):
    """Alerts as JSON to an address."""

    url: Url = Field(repr=False, description="The address. It may hold a token, so it is never printed.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Sent with every request.")
    timeout_s: Duration = Field(default=5.0, alias="timeout", gt=0, description="For one attempt.")
    secret: SecretStr | None = Field(default=None, description="Key of the HMAC-SHA256 signature.")


class WebhookNotifier:
    """Posts an alert.

    Args:
        url: http or https. It and the headers may hold secrets: no error names them.
        headers: Sent with each request.
        timeout_s: For connecting, and for each read and write.
        secret: Key of the signature; None sends none.
        clock: Seconds since the epoch.
    """

    section_type: ClassVar = WebhookSection

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

    @classmethod
    def create(cls, section: WebhookSection, emit_event: Any) -> WebhookNotifier:  # noqa: ARG003 (the Protocol's)
        """Makes the notifier."""
        return cls(
            section.url,
            headers={name: value.get_secret_value() for name, value in section.headers.items()},
            timeout_s=section.timeout_s,
            secret=section.secret.get_secret_value() if section.secret is not None else None,
        )

    def notify(self, alert: Alert) -> None:
        """Posts `alert`; redirects are not followed, and the body of the response is not read."""
        body = encode_body(alert)
        headers = {**self._headers, **self._standard_headers(alert, body)}
        try:
            with (
                httpx.Client(verify=self._certificates, timeout=self._timeout_s) as client,
                client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                self._check(response)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise PermanentError(type(error).__name__) from None
        except httpx.TransportError as error:
            is_ambiguous = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            raise TransientError(type(error).__name__, is_ambiguous=is_ambiguous) from None

    def _standard_headers(self, alert: Alert, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"otel-mlmon/{__version__}",
            "Idempotency-Key": alert.key,
        }
        if self._secret is not None:
            timestamp = str(int(self._clock()))
            headers["X-Mlmon-Timestamp"] = timestamp
            headers["X-Mlmon-Signature"] = signature(self._secret, timestamp, body)
        return headers

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        status = response.status_code
        if status in TRANSIENT_STATUSES or status >= 500:
            retry_after_s = _parse_retry_after(response.headers.get("Retry-After"), self._clock())
            raise TransientError(f"HTTP {status}", retry_after_s=retry_after_s)
        raise PermanentError(f"HTTP {status}")


def encode_body(alert: Alert) -> bytes:
    """Encodes the JSON document that is posted, UTF-8; always the same bytes for the same alert."""
    document = {**alert.to_dict(), "subject": format_title(alert), "text": format_alert(alert)}
    return json.dumps(document, ensure_ascii=False, sort_keys=True).encode()


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Computes `v1=` and 64 hex digits; a receiver computes the same and compares in constant time."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Parses a number of seconds or a date into seconds; None if it is neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.fromtimestamp(now_s, tz=timezone.utc)).total_seconds())
