"""Posts JSON over HTTP for notifiers, and decides whether another attempt may help after a failure.

Sources: RFC 9110 (names of headers, Retry-After, status codes).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Annotated, Final

import httpx
from pydantic import AfterValidator, SecretStr

from otel_mlmon.processor.notify.notifier import PermanentError, TransientError


def _check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value.get_secret_value()):
            raise ValueError(f"the value of {name!r} must be printable ASCII without spaces around it")
    return headers


Headers = Annotated[dict[str, SecretStr], AfterValidator(_check_headers)]
"""Headers of a request. Their values may be secrets, which no message names."""
TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})
"""Client errors after which another attempt may succeed; it may too after all of 500 and above."""


def post_request(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    certificates: ssl.SSLContext,
    now_s: float,
) -> None:
    """Posts a body over HTTP for a notifier; redirects are not followed, and the response's body is not read.

    Args:
        url: http or https. It and the headers may hold secrets: no error names them.
        body: What is posted.
        headers: Sent with it.
        timeout_s: For connecting, and for each read and write.
        certificates: Of whom is trusted; made once, since reading them costs 20 ms.
        now_s: Seconds since the epoch, for a date in Retry-After.

    Raises:
        TransientError: It was not taken; another attempt may succeed.
        PermanentError: It was not taken, and no attempt will succeed.
    """
    try:
        with (
            httpx.Client(verify=certificates, timeout=timeout_s) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            _check_response(response, now_s)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise PermanentError(type(error).__name__) from None
    except httpx.TransportError as error:
        is_ambiguous = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
        raise TransientError(type(error).__name__, is_ambiguous=is_ambiguous) from None


def _check_response(response: httpx.Response, now_s: float) -> None:
    if response.is_success:
        return
    status = response.status_code
    if status in TRANSIENT_STATUSES or status >= 500:
        retry_after_s = _parse_retry_after(response.headers.get("Retry-After"), now_s)
        raise TransientError(f"HTTP {status}", retry_after_s=retry_after_s)
    raise PermanentError(f"HTTP {status}")


def _parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Parses a `Retry-After` header, a number of seconds or a date, into seconds; None if it is neither."""
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
