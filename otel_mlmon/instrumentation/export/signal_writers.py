"""Writes everything that leaves the process: metrics, spans, events, and what goes to an error tracker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.aggregate.aggregator import Snapshot
from otel_mlmon.instrumentation.decode.model_loading import ModelLoad
from otel_mlmon.instrumentation.export import process_metrics
from otel_mlmon.instrumentation.export.bulk_self_test import UnavailableReasons
from otel_mlmon.instrumentation.export.error_tracker import ErrorTracker
from otel_mlmon.instrumentation.export.events import EventWriter
from otel_mlmon.instrumentation.export.metrics import MetricWriter
from otel_mlmon.instrumentation.export.providers import Providers
from otel_mlmon.instrumentation.export.sampling import RateLimiter, SlowCallDetector, prioritize
from otel_mlmon.instrumentation.export.spans import SpanBatch, SpanWriter
from otel_mlmon.instrumentation.settings import InstrumentationSettings, ModelOptions
from otel_mlmon.types import ModelKey


class SignalWriters:
    """Writes the signals of a process through one set of providers.

    Runs on: `write_metrics` on one thread at a time; `write_calls` and `write_model` likewise, beside it.

    Args:
        providers: One a signal.
        settings: How much a second.
        options: Gives the options of a model by its name: what makes a call slow or unsure.
        drain: Brings everything recorded so far into the metrics; called before each collection.
        sessions: Gives the model of every session alive.
        error_tracker: Gets the calls too.
        rng: Decides which calls get spans and events.
    """

    def __init__(
        self,
        providers: Providers,
        settings: InstrumentationSettings,
        *,
        options: Callable[[str], ModelOptions],
        drain: Callable[[], object],
        sessions: Callable[[], Iterable[ModelKey]],
        error_tracker: ErrorTracker,
        rng: random.Random,
    ) -> None:
        self.providers = providers
        self._options = options
        self._error_tracker = error_tracker
        self._slow_calls = SlowCallDetector()
        self._events = EventWriter(providers.logger, per_second=settings.events_per_second, rng=rng)
        self._metrics: MetricWriter | None = None
        self._spans: SpanWriter | None = None
        self._process_metrics: Any = None
        if providers.meter is not None:
            self._metrics = MetricWriter(
                providers.meter, drain=drain, sessions=sessions, min_new_values=settings.min_new_values
            )
        if providers.tracer is not None:
            limiter = RateLimiter(settings.spans_per_second)
            self._spans = SpanWriter(providers.tracer, ratio=settings.span_ratio, limiter=limiter, rng=rng)
        if providers.owns_meter:
            with guard("resource"):
                self._process_metrics = process_metrics.start(providers.meter)
        if providers.tracer is not None:
            with guard("sentry"):
                error_tracker.export_spans(providers.tracer, is_own=providers.tracer in providers.own)

    def write_metrics(self, snapshots: Iterable[Snapshot], loads: Sequence[tuple[ModelKey, float, str | None]]) -> None:
        """Adds what was aggregated to the metrics, and the model, seconds and error type of sessions created."""
        if self._metrics is None:
            return
        for snapshot in snapshots:
            with guard("metrics"):
                self._metrics.write(snapshot)
        if loads:
            with guard("metrics"):
                self._metrics.write_loads(loads)

    def write_model(self, load: ModelLoad, *, offset_ns: int) -> None:
        """Writes the events of a model that was loaded; `offset_ns` is Unix time minus `time.perf_counter_ns`."""
        self._events.write_model(load, offset_ns=offset_ns)

    def write_calls(self, batch: SpanBatch, *, offset_ns: int) -> None:
        """Writes the spans, exemplars and events of a batch whose calls the metrics hold.

        The host's span processors run here, and may block.
        """
        predictions, tracker_contexts = batch
        options = self._options(predictions.model.name)
        slow = self._slow_calls.detect(predictions.model.name, predictions.duration_ns, options.latency_threshold_s)
        priorities = prioritize(predictions, slow=slow, confidence_floor=options.confidence_floor or 0.0)
        tracker = self._error_tracker if self._error_tracker.is_active else None
        related_spans = tracker.related_spans(predictions, tracker_contexts) if tracker else None
        span_contexts = {}
        if self._spans is not None:
            span_contexts = self._spans.write(predictions, priorities, offset_ns=offset_ns, related_spans=related_spans)
            if self._metrics is not None:
                self._metrics.add_exemplars(predictions, priorities, span_contexts, offset_ns=offset_ns)
        self._events.write_predictions(predictions, priorities, span_contexts, offset_ns=offset_ns)
        if any(predictions.errors):
            self._events.write_exceptions(predictions, priorities, span_contexts, offset_ns=offset_ns)
        if tracker:
            with guard("sentry"):
                tracker.emit(
                    predictions, priorities, tracker_contexts, span_contexts, related_spans, offset_ns=offset_ns
                )

    def unavailable_reasons(self) -> UnavailableReasons:
        """Why values are recorded one by one, and why metrics have no exemplars; each empty if not so."""
        if self._metrics is None:
            reason = _missing_provider("meter", "OTEL_METRICS_EXPORTER leaves metrics")
            return UnavailableReasons(reason, reason)
        reasons = self._metrics.unavailable_reasons
        if self._spans is None and not reasons.exemplars:
            return reasons._replace(exemplars=_missing_provider("tracer", "OTEL_TRACES_EXPORTER leaves spans"))
        return reasons

    def describe_readers(self) -> dict[str, str]:
        """Describes what each metric reader exports of the values of features."""
        return self._metrics.describe_readers() if self._metrics is not None else {}

    def close_metrics(self) -> None:
        """Stops the observable instruments; providers stay as they are."""
        if self._metrics is not None:
            self._metrics.close()

    def shutdown(self, timeout_s: float) -> bool:
        """Exports what is left and ends our own providers; returns whether it was done in time."""
        if self._process_metrics is not None:
            self._process_metrics.uninstrument()
        if self._metrics is not None:
            self._metrics.drop_held_values()
        is_done = self.providers.shutdown(timeout_s)
        self.close_metrics()
        return is_done


def unavailable_reasons(writers: SignalWriters | None, *, is_closed: bool) -> UnavailableReasons:
    """Returns `SignalWriters.unavailable_reasons`, also before the first record and after the end."""
    if writers is not None:
        return writers.unavailable_reasons()
    reason = "it was shut down" if is_closed else "nothing was recorded yet"
    return UnavailableReasons(reason, reason)


def _missing_provider(kind: str, cause: str) -> str:
    return f"there is no {kind} provider: {cause} to one of your own, or no exporter can be made (failures: exporters)"
