"""Writes the totals of inference calls into OpenTelemetry metric instruments, with exemplars.

The callback of an observable instrument runs before every collection of any reader: it drains what is buffered, so each
collection holds every call that ended before it.

An exemplar names, in a histogram's bucket or beside a label's count, the trace of one of the calls that are in it.
Choice: of calls whose spans were written, with those spans' own ids and the calls' own times, so no exemplar points at
a span that nobody has; calls outside any trace that were slow, unsure or failed have spans too. A span is written after
its call was counted, so an exemplar may come one collection after its value. Source: opentelemetry-specification,
metrics/data-model.md#exemplars.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.aggregate.aggregator import MetricSnapshot
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.instrumentation.export.bulk_self_test import BulkUnavailableReasons, check_bulk_recording
from otel_mlmon.instrumentation.export.call_sampler import CallPriorities
from otel_mlmon.instrumentation.export.spans import UNTRACED_CONTEXT
from otel_mlmon.instrumentation.queue.call_queue import yield_interpreter
from otel_mlmon.internal_events import JOURNAL, Attributes, ValuesDropped, ValuesWithheld
from otel_mlmon.types import Floats, ModelKey
from otel_mlmon.version import __version__
from otel_mlmon.vocabulary import build_label_attributes

MAX_EXEMPLARS: Final = 8
"""Exemplars offered of a batch, metric and set of attributes: each costs as much as a `record` of the SDK's."""

SdkInstrument = TypeVar("SdkInstrument", Histogram, Counter)
MetricAttributes = dict[str, str]
Totals = dict[str, dict[Attributes, int]]
"""The totals of internal events, by metric."""


def make_exponential_views() -> list[View]:
    """Makes the SDK views that turn some metrics into exponential histograms, for a meter provider of our own.

    None where values are recorded one by one: the SDK's own way can fail in later collections (see `bulk`).
    """
    if check_bulk_recording().bulk:
        return []
    return [
        View(instrument_name=metric.name, aggregation=ExponentialBucketHistogramAggregation())
        for metric in semconv.APPLICATION_METRICS
        if metric.instrument == "exponential_histogram"
    ]


HIDDEN: Final = frozenset({semconv.FEATURE.name, semconv.VALUE.name})
"""Metrics of which only the buckets leave: the values are inputs, or nearly."""


class MetricWriter:
    """Writes the metrics of all models through one OpenTelemetry meter provider.

    Runs on: one thread at a time; `stop_callbacks` on any. The callbacks run on the readers' threads.

    Args:
        provider: Whose instruments are used.
        drain: Aggregates what is buffered, and calls `write_snapshot` with it.
        sessions: The models of the sessions alive, one entry a session.
        min_new_values: Values of a feature or of a regression that are written together at least; fewer are held, since
            the sum of one call's values is its input.
        earlier: The writer through another provider that this one follows: what that one holds moves here, and what it
            has counted is counted there.
    """

    def __init__(
        self,
        provider: MeterProvider,
        *,
        drain: Callable[[], object],
        sessions: Callable[[], Iterable[ModelKey]],
        min_new_values: int = 1,
        earlier: MetricWriter | None = None,
    ) -> None:
        self._min_new_values = min_new_values
        self._held_values: dict[tuple[str, frozenset[tuple[str, str]]], Floats] = {}
        instruments = self._instruments = _find_instruments(provider)
        self.unavailable_reasons = _find_unavailable_reasons(provider, instruments)
        """Why values are recorded one by one, and why there are no exemplars of calls with spans."""
        self._exemplar_stage = guard("exemplars")
        self._drain = drain
        if instruments.pid != os.getpid():  # a forked child counts from 0
            instruments.pid, instruments.earlier_totals = os.getpid(), {}
        if earlier is not None:
            self._held_values, earlier._held_values = earlier._held_values, {}
            instruments.earlier_totals = earlier._instruments.freeze_totals()
        instruments.drain, instruments.sessions = drain, sessions

    def write_snapshot(self, snapshot: MetricSnapshot) -> None:
        """Adds the totals of one model over one interval to the metric instruments."""
        base = build_model_attributes(snapshot.model)
        for error, durations in snapshot.durations_s.items():
            attributes = {**base, semconv.ERROR_TYPE: error} if error else base
            self._record_values(semconv.DURATION, durations, attributes, snapshot.slowest_calls.get(error))
        self._record_values(semconv.BATCH, snapshot.batch_sizes, base)
        for metric, values_by_output in (
            (semconv.CONFIDENCE, snapshot.confidences),
            (semconv.VALUE, snapshot.values),
            (semconv.ITEMS, snapshot.item_counts),
            (semconv.ITEM_CONFIDENCE, snapshot.item_confidences),
        ):
            for name, values in values_by_output.items():
                self._record_values(metric, values, add_output_attribute(base, name))
        for name, values in snapshot.inputs.features.items():
            self._record_values(semconv.FEATURE, values, {**base, semconv.FEATURE_NAME: name})
        for name, labels in snapshot.labels.items():
            self._count_labels(semconv.PREDICTIONS, labels, add_output_attribute(base, name), semconv.PREDICTION_LABEL)
        for name, count in snapshot.uncounted.items():
            if count:
                attributes = add_output_attribute(base, name)
                self._instruments.counters[semconv.UNCOUNTED.name].add(count, attributes, UNTRACED_CONTEXT)
        self._count_labels(semconv.MISSING_VALUES, snapshot.inputs.missing, base, semconv.FEATURE_NAME)
        for name, categories in snapshot.inputs.categories.items():
            self._count_labels(
                semconv.CATEGORY, categories, {**base, semconv.FEATURE_NAME: name}, semconv.FEATURE_VALUE
            )
        if snapshot.inputs.samples:
            self._instruments.counters[semconv.SAMPLES.name].add(snapshot.inputs.samples, base, UNTRACED_CONTEXT)

    def write_model_loads(self, loads: Iterable[tuple[ModelKey, float, str | None]]) -> None:
        """Adds how long loads of models took to the metric instruments, and which of them failed."""
        for model, duration_s, error in loads:
            attributes = build_model_attributes(model)
            if error:
                attributes[semconv.ERROR_TYPE] = error
            self._record_values(semconv.LOAD_DURATION, np.array([duration_s]), attributes)

    def add_exemplars(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        span_contexts: Mapping[int, Context],
        *,
        offset_ns: int,
    ) -> None:
        """Offers durations, confidences and labels of calls that have spans as exemplars of the metrics.

        Args:
            predictions: Calls that were written before.
            priorities: Their confidences.
            span_contexts: The context of the span, by call, of the calls that have one.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        if not span_contexts or self.unavailable_reasons.exemplars or self._exemplar_stage.is_open:
            return
        with self._exemplar_stage:
            ended_ns = predictions.started_ns + predictions.duration_ns + offset_ns
            for metric, attributes, values in _list_exemplar_values(predictions, priorities, span_contexts):
                instrument = self._instruments.find_instrument(metric)
                for value, call in pick_exemplar_values(values):
                    bulk.offer_exemplar(instrument, value, attributes, span_contexts[call], int(ended_ns[call]))

    def describe_metric_readers(self) -> dict[str, str]:
        """Describes what each metric reader exports of the values of features; empty if that cannot be found out."""
        with guard("status"):
            if not self.unavailable_reasons.bulk:
                return bulk.describe_metric_readers(self._instruments.histograms[semconv.FEATURE.name])
        return {}

    def drop_held_values(self) -> None:
        """Drops and counts values that were held back since they were too few, when no more will come."""
        count = sum(values.size for values in self._held_values.values())
        self._held_values.clear()
        if count:
            JOURNAL.emit_event(ValuesWithheld(count=count))

    def stop_callbacks(self) -> None:
        """Stops the callbacks of observable instruments, which OpenTelemetry cannot unregister.

        A successor that observes through the same provider by now goes on.
        """
        if self._instruments.drain is self._drain:
            self._instruments.drain, self._instruments.sessions = None, None

    def _record_values(
        self,
        metric: semconv.Metric,
        values: Floats,
        attributes: MetricAttributes,
        exemplar: tuple[float, object] | None = None,
    ) -> None:
        are_hidden = metric.name in HIDDEN
        if are_hidden:
            values = self._release_held_values(metric.name, values, attributes)
        if not values.size:
            return
        record = bulk.record_values_one_by_one if self.unavailable_reasons.bulk else bulk.record_values_at_once
        histogram = self._instruments.histograms[metric.name]
        refused = record(histogram, values, attributes, exemplar, are_hidden=are_hidden)
        yield_interpreter()
        if refused:
            JOURNAL.emit_event(ValuesDropped(reason="negative", count=refused))

    def _release_held_values(self, metric: str, values: Floats, attributes: MetricAttributes) -> Floats:
        """Returns values that may be exported, with those held back before; holds them back if they are too few."""
        key = (metric, frozenset(attributes.items()))
        earlier = self._held_values.pop(key, None)
        values = values if earlier is None else np.concatenate([earlier, values])
        if values.size >= self._min_new_values:
            return values
        self._held_values[key] = values
        return values[:0]

    def _count_labels(
        self, metric: semconv.Metric, counts: Mapping[str, int], base: MetricAttributes, key: str
    ) -> None:
        counter = self._instruments.counters[metric.name]
        for name, count in counts.items():
            counter.add(count, {**base, **build_label_attributes(key, name)}, UNTRACED_CONTEXT)


def build_model_attributes(model: ModelKey) -> MetricAttributes:
    """Builds the attributes that every metric of a model has: its name, version and so on."""
    attributes = {semconv.MODEL_NAME: model.name}
    if model.version:
        attributes[semconv.MODEL_VERSION] = model.version
    return attributes


def add_output_attribute(base: MetricAttributes, output: str) -> MetricAttributes:
    """Adds the name of a model's output to metric attributes; the name of an only output is empty and left out."""
    return {**base, semconv.OUTPUT_NAME: output} if output else base


def _list_exemplar_values(
    predictions: Predictions, priorities: CallPriorities, calls: Collection[int]
) -> Iterable[tuple[semconv.Metric, MetricAttributes, list[tuple[float, int]]]]:
    """Yields metric, attributes and values of the calls whose spans are to become exemplars."""
    base = build_model_attributes(ModelKey(predictions.model.name, predictions.model.version))
    durations: dict[str, list[tuple[float, int]]] = {}
    for call in calls:
        if predictions.duration_ns[call]:
            duration_s = int(predictions.duration_ns[call]) / 1e9
            durations.setdefault(predictions.errors[call] or "", []).append((duration_s, call))
    for error, values in durations.items():
        yield semconv.DURATION, {**base, semconv.ERROR_TYPE: error} if error else base, values
    confidences = ((float(priorities.min_confidence[call]), call) for call in calls)
    head = add_output_attribute(base, predictions.first_head_name)
    yield semconv.CONFIDENCE, head, [(confidence, call) for confidence, call in confidences if confidence >= 0]
    rows = predictions.labels
    labels: dict[str, list[tuple[float, int]]] = {}
    for row in np.flatnonzero(np.isin(rows.calls, list(calls))).tolist():
        labels.setdefault(rows.table[int(rows.codes[row])], []).append((1.0, int(rows.calls[row])))
    for label, values in labels.items():
        yield semconv.PREDICTIONS, {**head, **build_label_attributes(semconv.PREDICTION_LABEL, label)}, values[-1:]


def pick_exemplar_values(values: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Picks a few values for exemplars, evenly over their ranks and with both extremes."""
    if len(values) <= MAX_EXEMPLARS:
        return values
    ordered = sorted(values)
    return [ordered[rank] for rank in np.linspace(0, len(ordered) - 1, MAX_EXEMPLARS).astype(int).tolist()]


def _find_unavailable_reasons(provider: MeterProvider, instruments: _MetricInstruments) -> BulkUnavailableReasons:
    if not bulk.is_sdk_instrument(instruments.histograms[semconv.DURATION.name]):
        kind = type(provider)
        foreign = f"the meter provider is not OpenTelemetry's SDK but {kind.__module__}.{kind.__qualname__}"
        return BulkUnavailableReasons(foreign, foreign)
    reasons = check_bulk_recording()
    if not reasons.exemplars and bulk.has_exemplars_off(instruments.histograms[semconv.DURATION.name]):
        return reasons._replace(exemplars="the SDK's exemplar filter is always_off (OTEL_METRICS_EXEMPLAR_FILTER)")
    return reasons


def _unwrap_instrument(instrument: SdkInstrument) -> SdkInstrument:
    """Returns the SDK's metric instrument behind a proxy of OpenTelemetry's API."""
    return getattr(instrument, "_real_instrument", None) or instrument


class _MetricInstruments:
    """Holds the metric instruments of one meter provider, each created once."""

    def __init__(self, provider: MeterProvider) -> None:
        self.drain: Callable[[], object] | None = None
        self.sessions: Callable[[], Iterable[ModelKey]] | None = None
        self.pid = os.getpid()
        self.earlier_totals: Totals = {}
        """The part of the totals that another provider has exported."""
        self.final_totals: Totals = {}
        """The totals once another provider exports what is added to them."""
        self.histograms: dict[str, Histogram] = {}
        self.counters: dict[str, Counter] = {}
        meter = provider.get_meter(semconv.SCOPE, __version__)
        create: dict[str, Callable[[Meter, semconv.Metric], None]] = {
            "histogram": self._create_histogram,
            "exponential_histogram": self._create_histogram,
            "counter": self._create_counter,
            "observable_counter": self._create_totals_counter,
            "observable_up_down_counter": self._create_session_counter,
        }
        for metric in semconv.APPLICATION_METRICS:
            create[metric.instrument](meter, metric)

    def find_instrument(self, metric: semconv.Metric) -> Histogram | Counter:
        return self.histograms.get(metric.name) or self.counters[metric.name]

    def _create_histogram(self, meter: Meter, metric: semconv.Metric) -> None:
        histogram = meter.create_histogram(
            metric.name,
            metric.unit,
            metric.description,
            explicit_bucket_boundaries_advisory=metric.bounds or semconv.VALUE_BOUNDS,
        )
        self.histograms[metric.name] = _unwrap_instrument(histogram)

    def _create_counter(self, meter: Meter, metric: semconv.Metric) -> None:
        self.counters[metric.name] = _unwrap_instrument(
            meter.create_counter(metric.name, metric.unit, metric.description)
        )

    def _create_totals_counter(self, meter: Meter, metric: semconv.Metric) -> None:
        callback = functools.partial(self._observe_totals, metric.name)
        meter.create_observable_counter(metric.name, [callback], metric.unit, metric.description)

    def _create_session_counter(self, meter: Meter, metric: semconv.Metric) -> None:
        meter.create_observable_up_down_counter(metric.name, [self._observe_sessions], metric.unit, metric.description)

    def _observe_totals(self, name: str, _: CallbackOptions) -> list[Observation]:
        with guard("metrics"):
            if self.drain is not None:
                self.drain()  # which may make another provider follow
        totals = self.final_totals.get(name, {})
        if self.drain is not None:
            totals = self._subtract_earlier_totals(name, JOURNAL.read_totals(name))
        return [Observation(total, dict(attributes), UNTRACED_CONTEXT) for attributes, total in totals.items()]

    def freeze_totals(self) -> Totals:
        """Makes observable instruments report their present totals from now on; returns these totals."""
        totals = {
            metric.name: JOURNAL.read_totals(metric.name)
            for metric in semconv.APPLICATION_METRICS
            if metric.instrument == "observable_counter"
        }
        self.final_totals = {name: self._subtract_earlier_totals(name, counts) for name, counts in totals.items()}
        self.drain, self.sessions = None, None
        return totals

    def _subtract_earlier_totals(self, name: str, totals: Mapping[Attributes, int]) -> dict[Attributes, int]:
        earlier = self.earlier_totals.get(name, {})
        added = {key: total - earlier.get(key, 0) for key, total in totals.items()}
        return {key: total for key, total in added.items() if total > 0 or key not in earlier}

    def _observe_sessions(self, _: CallbackOptions) -> list[Observation]:
        counts: dict[ModelKey, int] = {}
        with guard("metrics"):
            for model in self.sessions() if self.sessions else ():
                counts[model] = counts.get(model, 0) + 1
        return [Observation(count, build_model_attributes(model), UNTRACED_CONTEXT) for model, count in counts.items()]


_INSTRUMENTS: Final[weakref.WeakKeyDictionary[Any, _MetricInstruments]] = weakref.WeakKeyDictionary()


def _find_instruments(provider: MeterProvider) -> _MetricInstruments:
    instruments = _INSTRUMENTS.get(provider)
    if instruments is None:
        instruments = _INSTRUMENTS[provider] = _MetricInstruments(provider)
    return instruments
