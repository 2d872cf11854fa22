"""Writes everything that leaves the process: metrics, spans and events, and calls for an error tracker."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.aggregate.aggregator import MetricSnapshot
from otel_mlmon.instrumentation.decode.model_loading import ModelLoad
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export import process_metrics
from otel_mlmon.instrumentation.export.bulk_self_test import BulkUnavailableReasons
from otel_mlmon.instrumentation.export.call_sampler import (
    CallPriorities,
    CallSample,
    CallSampler,
    SlowCallDetector,
    make_sampling_round,
    prioritize_calls,
)
from otel_mlmon.instrumentation.export.error_tracker import ErrorTracker
from otel_mlmon.instrumentation.export.events import EventWriter
from otel_mlmon.instrumentation.export.metrics import MetricWriter
from otel_mlmon.instrumentation.export.providers import SignalProviders, find_late_provider
from otel_mlmon.instrumentation.export.spans import SpanBatch, SpanCandidates, SpanWriter
from otel_mlmon.instrumentation.settings import InstrumentationSettings, ModelOptions
from otel_mlmon.types import Bools, ModelKey


class _ChosenCalls(NamedTuple):
    """Holds a batch of inference calls, and which of them were chosen for spans and events."""

    batch: SpanBatch
    priorities: CallPriorities
    with_sampled_parent: Sequence[int]
    samples: Mapping[str, dict[int, CallSample]]
    """By signal: `spans`, `events`, `exceptions`, `tracker`."""


class SignalWriters:
    """Writes the metrics, spans and events of this process through its OpenTelemetry providers.

    Runs on: `write_metrics` on one thread at a time; `write_spans_and_events` and `write_model_events` likewise,
    beside it.

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
        providers: SignalProviders,
        settings: InstrumentationSettings,
        *,
        options: Callable[[str], ModelOptions],
        drain: Callable[[], object],
        sessions: Callable[[], Iterable[ModelKey]],
        error_tracker: ErrorTracker,
        rng: random.Random,
    ) -> None:
        self.providers = providers
        self._settings = settings
        self._rng = rng
        self._make_metrics = functools.partial(
            MetricWriter, drain=drain, sessions=sessions, min_new_values=settings.min_new_values
        )
        self._options = options
        self._error_tracker = error_tracker
        self._slow_calls = SlowCallDetector()
        seed = rng.getrandbits(64)
        self._samplers = {
            signal: CallSampler(per_second, seed=seed)
            for signal, per_second in (
                ("spans", settings.spans_per_second),
                ("events", settings.events_per_second),
                ("exceptions", settings.events_per_second),
                ("tracker", settings.spans_per_second),
            )
        }
        self._events = EventWriter(providers.logger)
        self._metrics: MetricWriter | None = None
        self._spans: SpanWriter | None = None
        self._process_metrics: Any = None
        if providers.meter is not None:
            self._metrics = self._make_metrics(providers.meter)
        if providers.tracer is not None:
            self._spans = SpanWriter(providers.tracer, ratio=settings.span_ratio, rng=rng)
        if providers.owns_meter:
            with guard("resource"):
                self._process_metrics = process_metrics.start_process_metrics(providers.meter)
        if providers.tracer is not None:
            with guard("sentry"):
                error_tracker.export_spans(providers.tracer, is_own=providers.tracer in providers.own)

    def adopt_meter_provider(self) -> None:
        """Changes to a meter provider that the application has set meanwhile; nothing is counted twice.

        Runs on: that of `write_metrics`.
        """
        late = find_late_provider("metrics", self._settings, self.providers)
        if late is None:
            return
        with guard("signals"):
            earlier = self._metrics
            self._metrics = self._make_metrics(late, earlier=earlier)
            if self._process_metrics is not None:
                self._process_metrics, instrumentor = None, self._process_metrics
                instrumentor.uninstrument()
            self.providers.replace_provider("metrics", late)

    def adopt_tracer_and_logger(self) -> None:
        """Changes to tracer and logger providers that the application has set meanwhile.

        Runs on: that of `write_spans_and_events`.
        """
        tracer = find_late_provider("traces", self._settings, self.providers)
        if tracer is not None:
            with guard("signals"):
                self._spans = SpanWriter(tracer, ratio=self._settings.span_ratio, rng=self._rng)
                self.providers.replace_provider("traces", tracer)
            with guard("sentry"):
                self._error_tracker.export_spans(tracer, is_own=False)
        logger = find_late_provider("logs", self._settings, self.providers)
        if logger is not None:
            with guard("signals"):
                self._events = EventWriter(logger)
                self.providers.replace_provider("logs", logger)

    def write_metrics(
        self, snapshots: Iterable[MetricSnapshot], loads: Sequence[tuple[ModelKey, float, str | None]]
    ) -> None:
        """Adds the totals of inference calls and of loaded models to the metrics."""
        if self._metrics is None:
            return
        for snapshot in snapshots:
            with guard("metrics"):
                self._metrics.write_snapshot(snapshot)
        if loads:
            with guard("metrics"):
                self._metrics.write_model_loads(loads)

    def write_model_events(self, load: ModelLoad, *, offset_ns: int) -> None:
        """Writes the events of a model that was loaded."""
        self._events.write_model_event(load, offset_ns=offset_ns)

    def write_spans_and_events(self, batches: Sequence[SpanBatch], *, offset_ns: int) -> None:
        """Writes spans, exemplars and events of the chosen calls of batches that the metrics count already.

        The host's span processors run here, and may block.

        Args:
            batches: All that was decoded since the last round: among them is chosen at once.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        with guard("spans_and_events"):
            for calls in self._choose_calls(batches):
                with guard("spans_and_events"):
                    self._write_calls(calls, offset_ns)

    def _choose_calls(self, batches: Sequence[SpanBatch]) -> Iterator[_ChosenCalls]:
        models = [batch.predictions.model.model_key for batch in batches]
        priorities = [self._prioritize_calls(batch.predictions) for batch in batches]
        spans = self._spans
        candidates = [
            spans.find_span_candidates(batch.predictions, flags)
            if spans
            else SpanCandidates(np.zeros_like(flags.failed), ())
            for batch, flags in zip(batches, priorities, strict=True)
        ]
        signals = {
            "spans": [found.may_be_chosen for found in candidates],
            "events": [np.ones_like(flags.failed) for flags in priorities],
            "exceptions": [flags.failed for flags in priorities],
            "tracker": [self._find_tracker_candidates(batch) for batch in batches],
        }
        calls = make_sampling_round(models, priorities, [batch.predictions.duration_ns for batch in batches])
        chosen = {signal: self._samplers[signal].choose_calls(calls, flags) for signal, flags in signals.items()}
        for index, (batch, flags, found) in enumerate(zip(batches, priorities, candidates, strict=True)):
            samples = {signal: of_batches[index] for signal, of_batches in chosen.items()}
            yield _ChosenCalls(batch, flags, found.with_sampled_parent, samples)

    def _find_tracker_candidates(self, batch: SpanBatch) -> Bools:
        if self._error_tracker.is_active:
            with guard("sentry"):
                return self._error_tracker.find_transaction_candidates(*batch)
        return np.zeros(len(batch.predictions.errors), dtype=bool)

    def _prioritize_calls(self, predictions: Predictions) -> CallPriorities:
        options = self._options(predictions.model.name)
        slow = self._slow_calls.detect_slow_calls(
            predictions.model.name, predictions.duration_ns, options.latency_threshold_s
        )
        return prioritize_calls(predictions, slow=slow, confidence_floor=options.confidence_floor or 0.0)

    def _write_calls(self, calls: _ChosenCalls, offset_ns: int) -> None:
        (predictions, tracker_contexts), priorities, with_sampled_parent, samples = calls
        tracker = self._error_tracker if self._error_tracker.is_active else None
        related_spans = tracker.find_related_spans(predictions, tracker_contexts) if tracker else None
        span_contexts = {}
        if self._spans is not None:
            span_contexts = self._spans.write_spans(
                predictions,
                priorities,
                with_sampled_parent,
                samples["spans"],
                offset_ns=offset_ns,
                related_spans=related_spans,
            )
            if self._metrics is not None:
                self._metrics.add_exemplars(predictions, priorities, span_contexts, offset_ns=offset_ns)
        self._events.write_prediction_events(
            predictions, priorities, samples["events"], span_contexts, offset_ns=offset_ns
        )
        self._events.write_exception_events(predictions, samples["exceptions"], span_contexts, offset_ns=offset_ns)
        if tracker:
            with guard("sentry"):
                tracker.send_calls(
                    predictions,
                    priorities,
                    samples["tracker"],
                    tracker_contexts,
                    span_contexts,
                    related_spans,
                    offset_ns=offset_ns,
                )

    def find_unavailable_reasons(self) -> BulkUnavailableReasons:
        """Returns why values are recorded one by one, and why metrics have no exemplars; empty where neither is so."""
        if self._metrics is None:
            reason = _explain_missing_provider("meter", "OTEL_METRICS_EXPORTER leaves metrics")
            return BulkUnavailableReasons(reason, reason)
        reasons = self._metrics.unavailable_reasons
        if self._spans is None and not reasons.exemplars:
            return reasons._replace(exemplars=_explain_missing_provider("tracer", "OTEL_TRACES_EXPORTER leaves spans"))
        return reasons

    def describe_metric_readers(self) -> dict[str, str]:
        """Describes what each metric reader exports of the values of features."""
        return self._metrics.describe_metric_readers() if self._metrics is not None else {}

    def close_metrics(self) -> None:
        """Stops the observable metric instruments; the providers stay as they are."""
        if self._metrics is not None:
            self._metrics.stop_callbacks()

    def shut_down_providers(self, timeout_s: float, *, with_host: bool) -> bool:
        """Exports what is left and ends our own providers; returns whether that was done in time."""
        if self._process_metrics is not None:
            self._process_metrics.uninstrument()
        if self._metrics is not None:
            self._metrics.drop_held_values()
        is_done = self.providers.shut_down_providers(timeout_s, with_host=with_host)
        self.close_metrics()
        return is_done


def find_unavailable_reasons(writers: SignalWriters | None, *, is_closed: bool) -> BulkUnavailableReasons:
    """Returns why values are recorded one by one, also before the signal writers exist and after they ended."""
    if writers is not None:
        return writers.find_unavailable_reasons()
    reason = "it was shut down" if is_closed else "nothing was recorded yet"
    return BulkUnavailableReasons(reason, reason)


def _explain_missing_provider(kind: str, cause: str) -> str:
    return f"there is no {kind} provider: {cause} to one of your own, or no exporter can be made (failures: exporters)"
