"""Posts alerts as JSON to an HTTP address, signed where a secret is configured.

The body is the machine form of the alert (`alert/document.py`, docs/alert.schema.json). Headers: `Idempotency-Key`, the
same for every attempt of one change of state; with a secret also `X-Mlmon-Timestamp` (Unix seconds) and
`X-Mlmon-Signature`, which is `v1=` and the hex HMAC-SHA256 of timestamp, a full stop and the body, so neither can be
changed nor replayed later. Sources: RFC 2104 (HMAC);
draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import httpx
from pydantic import Field, SecretStr

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.document import encode_alert
from otel_mlmon.processor.config.section import ConfigSection, Duration, Url
from otel_mlmon.processor.notify.http import Headers, post_request
from otel_mlmon.version import __version__


class WebhookSection(ConfigSection):
    """The configuration of alerts as JSON to an HTTP address."""

    url: Url = Field(repr=False, description="The address. It may hold a token, so it is never printed.")
    headers: Headers = Field(default_factory=dict, description="Sent with every request.")
    timeout_s: Duration = Field(default=5.0, alias="timeout", gt=0, description="For one attempt.")
    secret: SecretStr | None = Field(default=None, description="Key of the HMAC-SHA256 signature.")


class WebhookNotifier:
    """Posts alerts as JSON to an HTTP address.

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
        """Makes the webhook notifier from its configuration section."""
        return cls(
            section.url,
            headers={name: value.get_secret_value() for name, value in section.headers.items()},
            timeout_s=section.timeout_s,
            secret=section.secret.get_secret_value() if section.secret is not None else None,
        )

    def notify(self, alert: Alert) -> None:
        """Posts an alert as JSON; redirects are not followed, and the response's body is not read."""
        body = encode_alert(alert)
        headers = {**self._headers, **self._build_headers(alert, body)}
        post_request(
            self._url,
            body,
            headers=headers,
            timeout_s=self._timeout_s,
            certificates=self._certificates,
            now_s=self._clock(),
        )

    def _build_headers(self, alert: Alert, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"otel-mlmon/{__version__}",
            "Idempotency-Key": alert.key,
        }
        if self._secret is not None:
            timestamp = str(int(self._clock()))
            headers["X-Mlmon-Timestamp"] = timestamp
            headers["X-Mlmon-Signature"] = compute_signature(self._secret, timestamp, body)
        return headers


def compute_signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Computes the signature of a webhook request: `v1=` and the 64 hex digits of an HMAC-SHA256."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
