"""Whether Sentry traces: its client is found or made, and a trace sample rate of zero is raised, and put back.

What the application chose is never touched: a rate above zero, a `traces_sampler`, `enable_tracing=False`. A client is
looked at once; an application that initialises Sentry again gets its new client looked at.
"""

from __future__ import annotations

import logging
import sys
import weakref
from typing import Any, Final, Literal

Mode = Literal["auto", "native", "otlp", "off"]

_LOG: Final = logging.getLogger("otel_mlmon")
_RATE: Final = "traces_sample_rate"

INSTALL: Final = "sentry-sdk is not installed: pip install 'otel-mlmon[sentry]'."


def active_client() -> Any:
    """The client of the application's that sends somewhere; None while there is none. Imports nothing."""
    module = sys.modules.get("sentry_sdk")
    find = getattr(module, "get_client", None)
    client = find() if find else None
    if client is None or not client.is_active():
        return None
    return client if client.transport is not None or getattr(client, "spotlight", None) is not None else None


def traces(client: Any) -> bool:
    """Whether the client makes transactions at all."""
    from sentry_sdk.tracing_utils import has_tracing_enabled

    return bool(has_tracing_enabled(client.options))


def streams(client: Any) -> bool:
    """Whether the client sends every span by itself, `trace_lifecycle="stream"`."""
    options = client.options
    said = options.get("trace_lifecycle") or (options.get("_experiments") or {}).get("trace_lifecycle")
    return bool(said == "stream")


def is_chosen(client: Any) -> bool:
    """Whether the application chose how much Sentry traces."""
    options = client.options
    return (
        bool(options.get(_RATE)) or options.get("traces_sampler") is not None or options.get("enable_tracing") is False
    )


class Clients:
    """Sentry's clients in this process, each looked at once.

    Runs on: one thread at a time.

    Args:
        rate: What a rate of None or 0 is raised to, within [0, 1]; 0 leaves every client alone.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._seen: weakref.ReferenceType[Any] | None = None
        self._raised: list[tuple[weakref.ReferenceType[Any], float | None]] = []
        self._made: Any = None

    def initialise(self, dsn: str, rate: float | None) -> None:
        """Initialise Sentry, which nobody did."""
        import sentry_sdk

        sentry_sdk.init(dsn=dsn, traces_sample_rate=rate)
        self._made = sentry_sdk.get_client()
        _LOG.info("Sentry is initialised by otel_mlmon, since nobody did: %s is %s.", _RATE, rate)

    def is_new(self, client: Any) -> bool:
        """Whether this is the first look at `client`."""
        if self._seen is not None and self._seen() is client:
            return False
        self._seen = weakref.ref(client)
        return True

    def raise_rate(self, client: Any) -> None:
        """Let a client that traces nothing trace a share, unless that was the application's choice or ours to keep."""
        if not self._rate or is_chosen(client):
            return
        old = client.options.get(_RATE)
        client.options[_RATE] = self._rate
        self._raised.append((weakref.ref(client), old))
        _LOG.info(
            "Sentry's %s is raised from %s to %s, so that inference performance is seen there; "
            "instrument(sentry_traces_sample_rate=0) leaves it alone.", _RATE, old, self._rate,
        )  # fmt: skip

    def restore(self, timeout_s: float) -> None:
        """Put back every rate that is still ours, and close the client that we made, if it is still the current one."""
        for found, old in self._raised:
            client = found()
            if client is not None and client.options.get(_RATE) == self._rate:
                client.options[_RATE] = old
        self._raised = []
        if self._made is not None:
            import sentry_sdk

            if sentry_sdk.get_client() is self._made:
                self._made.close(timeout=timeout_s)
                sentry_sdk.get_global_scope().set_client(None)
            self._made = None
