"""Parses quantities as people write them, `10s`, `64MiB`, `2%`, `1 per 30d`, and formats them the same way.

Numbers are read as decimals, so `200ms` is the float 0.2 and not a neighbour of it. Every parser takes a value of a
YAML file and raises ValueError with a sentence that says what was expected.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

_SECONDS: Final = {
    "w": Decimal(604800),
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_BYTES: Final = {
    "GiB": 2**30,
    "MiB": 2**20,
    "KiB": 2**10,
    "GB": 10**9,
    "MB": 10**6,
    "kB": 10**3,
    "B": 1,
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|us|ns|w|d|h|m|s)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern}\s*)+")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(GiB|MiB|KiB|GB|MB|kB|B)")
_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s+per\s+(.+)")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """An accepted rate of false alarms: how many in which time, over everything that is monitored."""

    count: float
    """Above 0."""
    per_s: float
    """Seconds, above 0."""


def parse_duration(value: object) -> float:
    """Parses a duration such as `10s`, `200ms` or `1h30m` into seconds; without a unit only 0 is valid.

    Raises:
        ValueError: `value` is not a duration.
    """
    if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _PART.findall(value)))
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    raise ValueError("must be a duration with its unit, such as 200ms, 10s, 5m, 1h or 14d")


def format_duration(seconds: float) -> str:
    """Formats seconds as a duration in the largest unit that needs no fraction; exact to a nanosecond."""
    nanoseconds = round(Decimal(repr(seconds)) * 10**9)
    if nanoseconds == 0:
        return "0s"
    for unit, length_s in _SECONDS.items():
        count, remainder = divmod(nanoseconds, int(length_s * 10**9))
        if remainder == 0 and unit != "w":
            return f"{count}{unit}"
    raise AssertionError("a whole number of nanoseconds has a unit")  # pragma: no cover


def parse_size(value: object) -> int:
    """Parses a size such as `64MiB`, `10MB` or `512B` into a number of bytes; without a unit it is bytes.

    Raises:
        ValueError: `value` is not a size.
    """
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(Decimal(match[1]) * _BYTES[match[2]])
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("must be a size, such as 64MiB")


def format_size(count: int) -> str:
    """Formats a number of bytes in the largest binary unit that needs no fraction."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return f"{count}B"


def parse_ratio(value: object) -> float:
    """Parses a ratio such as `2%` or `0.02` into a number in [0, 1].

    Raises:
        ValueError: `value` is not a ratio, or outside [0, 1].
    """
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip())):
        number = Decimal(match[1]) / 100
    elif isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = Decimal(value.strip())
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        number = Decimal(repr(value))
    else:
        raise ValueError("must be a ratio, such as 2% or 0.02")
    if not 0 <= number <= 1:
        raise ValueError("must be a ratio within 0% and 100%; a bare number is not per cent, so 2% is 0.02")
    return float(number)


def format_ratio(value: float) -> str:
    """Formats a ratio in [0, 1] in per cent."""
    return f"{(Decimal(repr(value)) * 100).normalize():f}%"


def parse_false_alarms(value: object) -> FalseAlarms:
    """Parses an accepted rate of false alarms such as `1 per 30d`.

    Raises:
        ValueError: `value` is not such a rate, or not above 0.
    """
    if isinstance(value, FalseAlarms):
        return value
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number per time, such as `1 per 30d`")
    rate = FalseAlarms(count=float(match[1]), per_s=parse_duration(match[2]))
    if rate.count <= 0 or rate.per_s <= 0:
        raise ValueError("must be above 0 on both sides, such as `1 per 30d`")
    return rate


def format_false_alarms(rate: FalseAlarms) -> str:
    """Formats an accepted rate of false alarms, such as `1 per 30d`."""
    return f"{rate.count:g} per {format_duration(rate.per_s)}"


def parse_address(value: object) -> str:
    """Parses a network address `host:port` with a port within 0 and 65535; an IPv6 host is in brackets.

    Raises:
        ValueError: `value` is not such an address.
    """
    host, separator, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not (host and separator and port.isascii() and port.isdigit()) or int(port) > 65535 or is_bare_ipv6:
        raise ValueError("must be host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return f"{host}:{int(port)}"


def parse_http_url(value: object) -> str:
    """Checks that a URL begins with http:// or https:// and names a host, and returns it unchanged.

    Raises:
        ValueError: `value` is not such an address.
    """
    error = ValueError("must be an address that begins with http:// or https://")
    if not isinstance(value, str):
        raise error
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise error from None
    if not is_valid or any(character.isspace() for character in value):
        raise error
    return value
