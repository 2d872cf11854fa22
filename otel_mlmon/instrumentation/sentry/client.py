"""Finds or creates Sentry's client, raises a trace sample rate of zero, and restores it at the end.

What the application chose is never touched: a rate above zero, a `traces_sampler`, `enable_tracing=False`. Each client
is examined once; where an application initialises Sentry again, its new client is.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

from otel_mlmon.instrumentation.sentry.headers import defer_sampling_decisions

_LOG: Final = logging.getLogger("otel_mlmon")
_RATE: Final = "traces_sample_rate"

FOLLOW: Final = "follow its sampling decisions (sentry_decides_downstream=False keeps these here)"
DECIDE: Final = "still decide for themselves"

MIN_EXIT_S: Final = 0.2
"""Seconds that Sentry may wait at the end of the process in any case: its thread has sent all the time before."""

INSTALL: Final = "sentry-sdk is not installed: pip install 'otel-mlmon[sentry]'."


def find_active_client() -> Any:
    """Returns the Sentry client of the application, if it sends anywhere; None if there is none."""
    get_client = getattr(sys.modules.get("sentry_sdk"), "get_client", None)
    client = get_client() if get_client else None
    if client is None or not client.is_active():
        return None
    return client if client.transport is not None or getattr(client, "spotlight", None) is not None else None


def has_sentry_tracing(client: Any) -> bool:
    """Returns whether tracing is enabled in a Sentry client."""
    from sentry_sdk.tracing_utils import has_tracing_enabled

    return bool(has_tracing_enabled(client.options))


def has_span_streaming(client: Any) -> bool:
    """Returns whether a Sentry client sends each span by itself (`trace_lifecycle="stream"`)."""
    options = client.options
    lifecycle = options.get("trace_lifecycle") or (options.get("_experiments") or {}).get("trace_lifecycle")
    return bool(lifecycle == "stream")


def has_sample_rate_choice(client: Any) -> bool:
    """Returns whether the application has configured how much of its traffic Sentry traces."""
    options = client.options
    return (
        bool(options.get(_RATE)) or options.get("traces_sampler") is not None or options.get("enable_tracing") is False
    )


def has_otel_spans(client: Any) -> bool:
    """Returns whether the Sentry client makes its spans from OpenTelemetry's, and not by its own API."""
    return client.options.get("instrumenter") == "otel" and not has_span_streaming(client)


def has_exit_flush(client: Any) -> bool:
    """Returns whether Sentry flushes the client at the end of the process."""
    return "atexit" in client.integrations


def shorten_exit_timeout(client: Any, *, by_s: float) -> None:
    """Shortens the time that Sentry may wait at the end of the process by the time waited already."""
    timeout_s = float(client.options["shutdown_timeout"])
    client.options["shutdown_timeout"] = max(timeout_s - max(0.0, by_s), min(timeout_s, MIN_EXIT_S))


class SentryClientAdjuster:
    """Adjusts the settings of Sentry's clients in this process, and restores them at the end.

    Runs on: one thread at a time.

    Args:
        rate: What a rate of None or 0 is raised to, within [0, 1]; 0 leaves every client alone.
        decides_downstream: Whether a raised rate decides for the services that this one calls.
    """

    def __init__(self, rate: float, *, decides_downstream: bool) -> None:
        self._rate = rate
        self._decides_downstream = decides_downstream
        self._restore_headers: Callable[[], None] = _restore_nothing
        self._latest: weakref.ReferenceType[Any] | None = None
        self._old_rates: list[tuple[weakref.ReferenceType[Any], float | None]] = []
        self._own: Any = None

    def initialise_sentry(self, dsn: str, rate: float | None) -> None:
        """Initialises Sentry, where the application has not done so."""
        import sentry_sdk

        sentry_sdk.init(dsn=dsn, traces_sample_rate=rate)
        self._own = sentry_sdk.get_client()
        self._defer_downstream_sampling()
        _LOG.info("otel_mlmon initialised Sentry, since the application did not: %s is %s.", _RATE, rate)

    def is_new_client(self, client: Any) -> bool:
        """Returns whether Sentry's client is another one than when this was last asked."""
        if self._latest is not None and self._latest() is client:
            return False
        self._latest = weakref.ref(client)
        return True

    def raise_sample_rate(self, client: Any) -> None:
        """Raises the trace sample rate of a Sentry client that traces nothing, unless the application chose so."""
        if not self._rate or has_sample_rate_choice(client):
            return
        old = client.options.get(_RATE)
        client.options[_RATE] = self._rate
        self._old_rates.append((weakref.ref(client), old))
        self._defer_downstream_sampling()
        _LOG.info(
            "otel_mlmon raised Sentry's %s from %s to %s, so that inference performance is seen there; "
            "services called from here %s; instrument(sentry_traces_sample_rate=0) leaves it alone.",
            _RATE, old, self._rate, FOLLOW if self._decides_downstream else DECIDE,
        )  # fmt: skip

    def _defer_downstream_sampling(self) -> None:
        if not self._decides_downstream and self._restore_headers is _restore_nothing:
            self._restore_headers = defer_sampling_decisions()

    def restore_sample_rates(self, timeout_s: float, *, is_exit: bool = False) -> None:
        """Restores the trace sample rates that `instrument()` raised, and closes the Sentry client that it created.

        Args:
            timeout_s: How long the client may send before it is closed.
            is_exit: Whether the process ends, where Sentry closes it.
        """
        self._restore_headers()
        self._restore_headers = _restore_nothing
        for reference, old in self._old_rates:
            client = reference()
            if client is not None and client.options.get(_RATE) == self._rate:
                client.options[_RATE] = old
        self._old_rates = []
        if self._own is not None:
            import sentry_sdk

            if sentry_sdk.get_client() is self._own and not is_exit:
                self._own.close(timeout=timeout_s)
                sentry_sdk.get_global_scope().set_client(None)
            self._own = None


def _restore_nothing() -> None:
    """Undoes nothing, since nothing was changed in Sentry's headers."""
