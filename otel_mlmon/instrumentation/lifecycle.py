"""`instrument()`, `uninstrument()`, and the handle that the first gives."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from otel_mlmon.instrumentation.export.providers import Given
from otel_mlmon.instrumentation.pipeline import Pipeline
from otel_mlmon.instrumentation.settings import ModelOptions, SentryMode, Settings, resolve_settings
from otel_mlmon.instrumentation.status import Status
from otel_mlmon.options import UNSET, Unset

_LOG: Final = logging.getLogger("otel_mlmon")


class Handle:
    """What `instrument()` gives; valid even if nothing could be instrumented.

    Runs on: any thread of the host's. Nothing here raises.

    Args:
        pipeline: What was started, or None.
        reason: Why nothing was.
    """

    def __init__(self, pipeline: Pipeline | None, *, reason: str = "") -> None:
        self._pipeline = pipeline
        self._reason = reason

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Export everything that was called before; whether it was done within `timeout_s`."""
        return self._pipeline is None or self._pipeline.flush(timeout_s)

    def shutdown(self, timeout_s: float = 2.0) -> bool:
        """Uninstrument and export what is left; whether it was done within `timeout_s`. May be called again."""
        return self._pipeline is None or _stop(self._pipeline, timeout_s)

    def uninstrument(self) -> None:
        """`shutdown` with the time that the settings allow."""
        if self._pipeline is not None:
            _stop(self._pipeline, self._pipeline.settings.shutdown_timeout_s)

    def status(self) -> Status:
        """What the instrumentation is doing."""
        return Status(is_active=False, reason=self._reason) if self._pipeline is None else self._pipeline.status()


class _Current:
    """The process's one pipeline."""

    pipeline: Pipeline | None = None
    lock = threading.Lock()


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    models: Mapping[str, ModelOptions] | None = None,
    model_name: str | Callable[[Any], str] | Unset = UNSET,
    span_ratio: float | Unset = UNSET,
    spans_per_second: float | Unset = UNSET,
    events_per_second: float | Unset = UNSET,
    latency_threshold_s: float | Unset = UNSET,
    confidence_floor: float | Unset = UNSET,
    max_labels: int | Unset = UNSET,
    max_features: int | Unset = UNSET,
    buffer_records: int | Unset = UNSET,
    buffer_bytes: int | Unset = UNSET,
    flush_interval_s: float | Unset = UNSET,
    shutdown_timeout_s: float | Unset = UNSET,
    sentry: SentryMode | Unset = UNSET,
    sentry_traces_sample_rate: float | Unset | None = UNSET,
    sentry_dsn: str | Unset = UNSET,
    onnxruntime_telemetry: bool | Unset = UNSET,
) -> Handle:
    """Measure every inference of onnxruntime in this process.

    What is not given comes from `OTEL_MLMON_<NAME>`, else from a default. A second call adds its `models` for sessions
    that have not run yet, and says in a warning which of its other arguments it ignores.

    Args:
        tracer_provider: For spans; else the global one, else one of our own that exports by OTLP.
        meter_provider: For metrics; likewise.
        logger_provider: For events; likewise.
        models: What is known of a model, by its name.
        model_name: The model's name, or a function from session to name; empty lets it be found.
        span_ratio: Share of calls outside any trace that get a span, within [0, 1].
        spans_per_second: Spans a second at most for those calls.
        events_per_second: `ml.prediction` events a second at most, and as many `ml.inference.exception`.
        latency_threshold_s: A call that takes longer gets a span; above 0.
        confidence_floor: A less confident prediction gets a span, and its event comes first; within [0, 1].
        max_labels: Labels counted by name; the rest is `_OTHER`.
        max_features: Input features profiled; 0 looks at no input.
        buffer_records: Calls that may wait.
        buffer_bytes: Bytes that they may weigh.
        flush_interval_s: How often they are aggregated.
        shutdown_timeout_s: How long the end of the process may wait for the last export.
        sentry: How inferences get to Sentry; by itself, through Sentry's own tracing once that is initialised.
        sentry_traces_sample_rate: What Sentry's rate is raised to where it is None or 0, within [0, 1]; 0 or None
            leaves it alone.
        sentry_dsn: Where Sentry is, if nobody has initialised it; else `SENTRY_DSN`.
        onnxruntime_telemetry: False switches off what onnxruntime itself sends to Microsoft; True leaves it as it is.

    Raises:
        ConfigurationError: Arguments are wrong; says all that is.
    """
    arguments = {
        name: value
        for name, value in locals().items()
        if name not in {"tracer_provider", "meter_provider", "logger_provider", "models"}
    }
    settings = resolve_settings(arguments, models=models, environ=os.environ)
    given = Given(tracer=tracer_provider, meter=meter_provider, logger=logger_provider)
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Handle(None, reason="OTEL_SDK_DISABLED is true")
    with _Current.lock:
        if _Current.pipeline is not None:
            _merge(_Current.pipeline, settings, given)
            return Handle(_Current.pipeline)
        _Current.pipeline = Pipeline(settings, given)
        return Handle(_Current.pipeline)


def uninstrument() -> None:
    """Undo `instrument()`; nothing if it was not called."""
    pipeline = _Current.pipeline
    if pipeline is not None:
        _stop(pipeline, pipeline.settings.shutdown_timeout_s)


def is_instrumented() -> bool:
    """Whether `instrument()` was called and not undone."""
    return _Current.pipeline is not None


def _merge(running: Pipeline, settings: Settings, given: Given) -> None:
    running.settings.models.update(settings.models)
    ignored = running.settings.differences(settings) + running.given.differences(given)
    if ignored:
        _LOG.warning(
            "instrument() was called before: %s of this call is ignored; call uninstrument() first.", ", ".join(ignored)
        )


def _stop(pipeline: Pipeline, timeout_s: float) -> bool:
    with _Current.lock:
        if _Current.pipeline is not pipeline:
            return True
        # Here: another thread's `instrument()` must not patch on top of what is about to be taken off.
        pipeline.uninstrument()
        _Current.pipeline = None
    return pipeline.shutdown(timeout_s)


def _renew_lock() -> None:
    _Current.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
