"""Decides how inference calls reach Sentry, by what the application has set up, so that none arrives twice."""

from __future__ import annotations

import logging
from typing import Any, Final, Literal, TypeAlias

from otel_mlmon.instrumentation.sentry import otlp
from otel_mlmon.instrumentation.sentry.client import has_otel_spans
from otel_mlmon.instrumentation.settings import SentryMode

Mode: TypeAlias = Literal["native", "otlp", "otel"]

CONVERTED: Final = (
    "sentry=%r is refused: Sentry makes its spans of OpenTelemetry's, by instrumenter='otel', and inferences are among "
    "them already."
)
TWICE: Final = (
    "sentry='native' beside Sentry's OTLPIntegration: inferences reach Sentry twice, and errors may link to Sentry's "
    "own trace. Leave sentry out of instrument() to use the integration alone."
)
HAS_RATE: Final = (
    "sentry='otlp' is refused: Sentry's client has a traces_sample_rate or a traces_sampler, with which errors "
    "link to the wrong trace. Leave both out of sentry_sdk.init() to use it; sentry='native' is used instead."
)

_LOG: Final = logging.getLogger("otel_mlmon")


def choose_sentry_mode(choice: SentryMode, client: Any) -> Mode:
    """Returns the mode in which inference calls reach a Sentry client; warns if the developer's choice is impossible.

    Args:
        choice: The option `sentry`, other than `off`.
        client: Sentry's client.
    """
    if has_otel_spans(client):
        if choice != "auto":
            _LOG.warning(CONVERTED, choice)
        return "otel"
    if otlp.has_otlp_setup(client):
        if choice != "native":
            return "otlp"
        _LOG.warning(TWICE)
    elif choice == "otlp":
        reason = "" if otlp.is_otlp_available() else otlp.TOO_OLD
        reason = reason or (HAS_RATE if otlp.has_own_tracing(client) else "")
        if not reason:
            return "otlp"
        _LOG.warning(reason)
    return "native"
