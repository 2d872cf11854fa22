"""Sentry's client: looked up or created, and a trace sample rate of zero raised, and restored at the end.

What the application chose is never touched: a rate above zero, a `traces_sampler`, `enable_tracing=False`. Each client
is examined once; where an application initialises Sentry again, its new client is.
"""

from __future__ import annotations

import logging
import sys
import weakref
from typing import Any, Final

_LOG: Final = logging.getLogger("otel_mlmon")
_RATE: Final = "traces_sample_rate"

INSTALL: Final = "sentry-sdk is not installed: pip install 'otel-mlmon[sentry]'."


def active_client() -> Any:
    """Returns the application's client if it sends somewhere; None while there is none. Imports nothing."""
    get_client = getattr(sys.modules.get("sentry_sdk"), "get_client", None)
    client = get_client() if get_client else None
    if client is None or not client.is_active():
        return None
    return client if client.transport is not None or getattr(client, "spotlight", None) is not None else None


def has_tracing(client: Any) -> bool:
    """Returns whether the client makes transactions at all."""
    from sentry_sdk.tracing_utils import has_tracing_enabled

    return bool(has_tracing_enabled(client.options))


def is_streaming(client: Any) -> bool:
    """Whether the client sends every span by itself, `trace_lifecycle="stream"`."""
    options = client.options
    lifecycle = options.get("trace_lifecycle") or (options.get("_experiments") or {}).get("trace_lifecycle")
    return bool(lifecycle == "stream")


def has_rate_choice(client: Any) -> bool:
    """Whether the application chose how much Sentry traces."""
    options = client.options
    return (
        bool(options.get(_RATE)) or options.get("traces_sampler") is not None or options.get("enable_tracing") is False
    )


class SentryClients:
    """Adjusts Sentry's clients in this process, each once.

    Runs on: one thread at a time.

    Args:
        rate: What a rate of None or 0 is raised to, within [0, 1]; 0 leaves every client alone.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._latest: weakref.ReferenceType[Any] | None = None
        self._old_rates: list[tuple[weakref.ReferenceType[Any], float | None]] = []
        self._own: Any = None

    def initialise(self, dsn: str, rate: float | None) -> None:
        """Initialises Sentry, where the application did not."""
        import sentry_sdk

        sentry_sdk.init(dsn=dsn, traces_sample_rate=rate)
        self._own = sentry_sdk.get_client()
        _LOG.info("otel_mlmon initialised Sentry, since the application did not: %s is %s.", _RATE, rate)

    def is_new(self, client: Any) -> bool:
        """Returns whether `client` differs from that of the last call."""
        if self._latest is not None and self._latest() is client:
            return False
        self._latest = weakref.ref(client)
        return True

    def raise_rate(self, client: Any) -> None:
        """Raises the rate of a client that traces nothing, unless the application chose that."""
        if not self._rate or has_rate_choice(client):
            return
        old = client.options.get(_RATE)
        client.options[_RATE] = self._rate
        self._old_rates.append((weakref.ref(client), old))
        _LOG.info(
            "otel_mlmon raised Sentry's %s from %s to %s, so that inference performance is seen there; "
            "instrument(sentry_traces_sample_rate=0) leaves it alone.", _RATE, old, self._rate,
        )  # fmt: skip

    def restore(self, timeout_s: float) -> None:
        """Restores every raised rate that nobody changed since, and closes our own client if it is still current."""
        for reference, old in self._old_rates:
            client = reference()
            if client is not None and client.options.get(_RATE) == self._rate:
                client.options[_RATE] = old
        self._old_rates = []
        if self._own is not None:
            import sentry_sdk

            if sentry_sdk.get_client() is self._own:
                self._own.close(timeout=timeout_s)
                sentry_sdk.get_global_scope().set_client(None)
            self._own = None
