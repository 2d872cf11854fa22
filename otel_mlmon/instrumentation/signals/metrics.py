"""The instruments of `semconv.APPLICATION_METRICS`, and how a snapshot gets into them.

The callback of an observable instrument runs before every collection of any reader: it drains what is buffered, so each
collection holds every call that ended before it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.aggregate.snapshot import ModelKey, Snapshot, Values
from otel_mlmon.instrumentation.signals import bulk
from otel_mlmon.internal_events import JOURNAL, ValuesDropped
from otel_mlmon.version import __version__
from otel_mlmon.yielding import give_way

Attributes = dict[str, str]
Loads = Iterable[tuple[ModelKey, float, str | None]]


def exponential_views() -> list[View]:
    """For a meter provider of our own: exponential histograms where the contract has them.

    None where values go in one by one: the SDK's own way into them can fail in later collections (see `bulk`).
    """
    is_bulk = False
    with guard("bulk_self_test"):
        is_bulk = bulk.agrees()
    return [
        View(instrument_name=metric.name, aggregation=ExponentialBucketHistogramAggregation())
        for metric in semconv.APPLICATION_METRICS
        if is_bulk and metric.instrument == "exponential_histogram"
    ]


class Metrics:
    """Writes snapshots into one meter provider.

    Runs on: one thread at a time; `close` on any. The callbacks run on the readers' threads.

    Args:
        provider: Whose instruments are used.
        drain: Aggregates what is buffered, and comes back here.
        sessions: The models of the sessions alive, one entry a session.
    """

    def __init__(
        self,
        provider: MeterProvider,
        *,
        drain: Callable[[], None],
        sessions: Callable[[], Iterable[ModelKey]],
    ) -> None:
        instruments = _instruments(provider)
        self._instruments = instruments
        self.is_bulk = False
        """Whether histograms are filled at once; else one value after the other."""
        with guard("bulk_self_test"):
            self.is_bulk = bulk.is_sdk(instruments.histograms[semconv.DURATION.name]) and bulk.agrees()
        instruments.drain, instruments.sessions = drain, sessions

    def observe(self, snapshot: Snapshot) -> None:
        """Add one interval of one model."""
        base = model_attributes(snapshot.model)
        for error, durations in snapshot.durations_s.items():
            self._record(semconv.DURATION, durations, {**base, semconv.ERROR_TYPE: error} if error else base)
        self._record(semconv.BATCH, snapshot.batch_sizes, base)
        self._record(semconv.CONFIDENCE, snapshot.confidences, base)
        for name, values in snapshot.values.items():
            self._record(semconv.VALUE, values, {**base, semconv.OUTPUT_NAME: name})
        for name, values in snapshot.features.items():
            self._record(semconv.FEATURE, values, {**base, semconv.FEATURE_NAME: name})
        self._count(semconv.PREDICTIONS, snapshot.labels.counts, base, semconv.PREDICTION_LABEL)
        self._count(semconv.MISSING_VALUES, snapshot.missing.counts, base, semconv.FEATURE_NAME)
        for name, categories in snapshot.categories.items():
            self._count(
                semconv.CATEGORY, categories.counts, {**base, semconv.FEATURE_NAME: name}, semconv.FEATURE_VALUE
            )
        if snapshot.samples:
            self._instruments.counters[semconv.SAMPLES.name].add(snapshot.samples, base)

    def observe_loads(self, loads: Loads) -> None:
        """Add sessions created: model, seconds, error type of those that were not."""
        for model, duration_s, error in loads:
            attributes = model_attributes(model)
            if error:
                attributes[semconv.ERROR_TYPE] = error
            self._record(semconv.LOAD_DURATION, Values(numbers=np.array([duration_s])), attributes)

    def close(self) -> None:
        """Observe nothing any more; OpenTelemetry has no way to take a callback off."""
        self._instruments.drain, self._instruments.sessions = None, None

    def _record(self, metric: semconv.Metric, values: Values, attributes: Attributes) -> None:
        if not values.numbers.size:
            return
        write = bulk.inject if self.is_bulk else bulk.record_all
        refused = write(self._instruments.histograms[metric.name], values.numbers, attributes, values.exemplar)
        give_way()
        if refused:
            JOURNAL.emit(ValuesDropped(reason="negative", count=refused))

    def _count(self, metric: semconv.Metric, counts: Mapping[str, int], base: Attributes, key: str) -> None:
        counter = self._instruments.counters[metric.name]
        for name, count in counts.items():
            counter.add(count, {**base, key: name})


def model_attributes(model: ModelKey) -> Attributes:
    """The attributes that every metric of a model carries."""
    attributes = {semconv.MODEL_NAME: model.name}
    if model.version:
        attributes[semconv.MODEL_VERSION] = model.version
    return attributes


class _Instruments:
    """The instruments of one meter provider, made once: the SDK warns of a second of the same name."""

    def __init__(self, provider: MeterProvider) -> None:
        self.drain: Callable[[], None] | None = None
        self.sessions: Callable[[], Iterable[ModelKey]] | None = None
        self.histograms: dict[str, Histogram] = {}
        self.counters: dict[str, Counter] = {}
        meter = provider.get_meter(semconv.SCOPE, __version__)
        make: dict[str, Callable[[Meter, semconv.Metric], None]] = {
            "histogram": self._histogram,
            "exponential_histogram": self._histogram,
            "counter": self._counter,
            "observable_counter": self._totals,
            "observable_up_down_counter": self._up_down,
        }
        for metric in semconv.APPLICATION_METRICS:
            make[metric.instrument](meter, metric)

    def _histogram(self, meter: Meter, metric: semconv.Metric) -> None:
        made = meter.create_histogram(
            metric.name,
            metric.unit,
            metric.description,
            explicit_bucket_boundaries_advisory=metric.bounds or semconv.VALUE_BOUNDS,
        )
        # A provider set later stands behind the API's proxy.
        self.histograms[metric.name] = getattr(made, "_real_instrument", None) or made

    def _counter(self, meter: Meter, metric: semconv.Metric) -> None:
        self.counters[metric.name] = meter.create_counter(metric.name, metric.unit, metric.description)

    def _totals(self, meter: Meter, metric: semconv.Metric) -> None:
        callback = functools.partial(self._observe_totals, metric.name)
        meter.create_observable_counter(metric.name, [callback], metric.unit, metric.description)

    def _up_down(self, meter: Meter, metric: semconv.Metric) -> None:
        meter.create_observable_up_down_counter(metric.name, [self._observe_sessions], metric.unit, metric.description)

    def _observe_totals(self, name: str, _: CallbackOptions) -> list[Observation]:
        if self.drain is None:
            return []
        with guard("metrics"):
            self.drain()
        return [Observation(total, dict(attributes)) for attributes, total in JOURNAL.totals(name).items()]

    def _observe_sessions(self, _: CallbackOptions) -> list[Observation]:
        counts: dict[ModelKey, int] = {}
        with guard("metrics"):
            for model in self.sessions() if self.sessions else ():
                counts[model] = counts.get(model, 0) + 1
        return [Observation(count, model_attributes(model)) for model, count in counts.items()]


_MADE: Final[weakref.WeakKeyDictionary[Any, _Instruments]] = weakref.WeakKeyDictionary()


def _instruments(provider: MeterProvider) -> _Instruments:
    found = _MADE.get(provider)
    if found is None:
        found = _Instruments(provider)
        _MADE[provider] = found
    return found
