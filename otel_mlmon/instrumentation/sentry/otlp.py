"""Sends OpenTelemetry's spans to Sentry by OTLP.

Source: docs.sentry.io, Python, OTLP: the integration links errors to OpenTelemetry's spans as long as the client has
no trace sample rate at all; with one, even 0.0, an error inside a transaction of Sentry's links to Sentry's own trace.
Choice: of `OTLPIntegration(setup_propagator=False)` only the linking is used, not its exporter: that would create and
set the process's tracer provider, and our spans that go to a Collector would go to Sentry instead. A span
processor on the provider that we use sends to both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor

TOO_OLD: Final = "sentry='otlp' needs a newer sentry-sdk, with its OTLP integration; sentry='native' is used instead."


def is_otlp_available() -> bool:
    """Returns whether this version of Sentry's SDK has the OTLP integration."""
    try:
        from sentry_sdk.integrations import DidNotEnable
    except ImportError:
        return False
    try:
        import sentry_sdk.integrations.otlp  # noqa: F401
    except (ImportError, DidNotEnable):
        return False
    return True


def link_errors() -> Callable[[], None]:
    """Links Sentry's errors to OpenTelemetry's spans; returns the function that undoes this."""
    from sentry_sdk.integrations.otlp import OTLPIntegration
    from sentry_sdk.scope import has_external_propagation_context, remove_external_propagation_context

    if has_external_propagation_context():
        return lambda: None  # somebody else's
    OTLPIntegration(setup_otlp_traces_exporter=False, setup_propagator=False).setup_once()
    return remove_external_propagation_context


def has_otlp_setup(client: Any) -> bool:
    """Returns whether the application has set up Sentry's OTLP integration itself."""
    return "otlp" in client.integrations


def has_own_tracing(client: Any) -> bool:
    """Returns whether the application has set up Sentry's own tracing, which prevents linking errors."""
    options = client.options
    return options.get("traces_sample_rate") is not None or options.get("traces_sampler") is not None


class SentrySpanProcessor(SpanProcessor):
    """An OpenTelemetry span processor that sends spans to Sentry by OTLP.

    Args:
        dsn: Where to.
        is_sampled: Whether the next span is sent.
    """

    def __init__(self, dsn: str, *, is_sampled: Callable[[], bool]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from sentry_sdk.consts import VERSION, EndpointType
        from sentry_sdk.utils import Dsn

        auth = Dsn(dsn).to_auth(f"sentry.python/{VERSION}")
        exporter = OTLPSpanExporter(
            endpoint=auth.get_api_url(EndpointType.OTLP_TRACES), headers={"X-Sentry-Auth": auth.to_header()}
        )
        self._batch = BatchSpanProcessor(exporter)
        self._is_sampled = is_sampled

    def on_end(self, span: ReadableSpan) -> None:
        """Queues a span that has ended, to be sent to Sentry."""
        if self._is_sampled():
            self._batch.on_end(span)

    def shutdown(self) -> None:
        """Sends the queued spans to Sentry and ends the exporter."""
        self._batch.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Sends the queued OpenTelemetry spans to Sentry."""
        return bool(self._batch.force_flush(timeout_millis))
