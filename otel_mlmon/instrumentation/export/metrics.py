"""The instruments of `semconv.APPLICATION_METRICS`, and how a snapshot gets into them.

The callback of an observable instrument runs before every collection of any reader: it drains what is buffered, so each
collection holds every call that ended before it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.aggregate.snapshot import Snapshot, Values
from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.instrumentation.export.bulk_self_test import Trouble, self_test
from otel_mlmon.instrumentation.export.context import NOWHERE
from otel_mlmon.instrumentation.export.metric_readers import ways
from otel_mlmon.instrumentation.queue.worker import give_way
from otel_mlmon.internal_events import JOURNAL, ValuesDropped
from otel_mlmon.types import ModelKey
from otel_mlmon.version import __version__

Instrument = TypeVar("Instrument", Histogram, Counter)
Attributes = dict[str, str]
Loads = Iterable[tuple[ModelKey, float, str | None]]


def exponential_views() -> list[View]:
    """For a meter provider of our own: exponential histograms where the contract has them.

    None where values go in one by one: the SDK's own way into them can fail in later collections (see `bulk`).
    """
    if self_test().values:
        return []
    return [
        View(instrument_name=metric.name, aggregation=ExponentialBucketHistogramAggregation())
        for metric in semconv.APPLICATION_METRICS
        if metric.instrument == "exponential_histogram"
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
        drain: Callable[[], object],
        sessions: Callable[[], Iterable[ModelKey]],
    ) -> None:
        instruments = _instruments(provider)
        self._instruments = instruments
        self.trouble = _trouble(provider, instruments)
        """Why histograms are filled one value after the other, and why there are no exemplars of calls with spans."""
        self._drain = drain
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
            self._instruments.counters[semconv.SAMPLES.name].add(snapshot.samples, base, NOWHERE)

    def observe_loads(self, loads: Loads) -> None:
        """Add sessions created: model, seconds, error type of those that were not."""
        for model, duration_s, error in loads:
            attributes = model_attributes(model)
            if error:
                attributes[semconv.ERROR_TYPE] = error
            self._record(semconv.LOAD_DURATION, Values(numbers=np.array([duration_s])), attributes)

    def offer(self, metric: semconv.Metric, value: float, attributes: Attributes, context: Context, at_ns: int) -> None:
        """Let a value observed before be an exemplar of a histogram or a counter (`bulk.offer`)."""
        if not self.trouble.exemplars:
            name = metric.name
            instrument = self._instruments.histograms.get(name) or self._instruments.counters[name]
            bulk.offer(instrument, value, attributes, context, at_ns)

    def ways(self) -> dict[str, str]:
        """How the values of features get out, by metric reader (`ways.ways`); nothing where that cannot be seen."""
        with guard("status"):
            return {} if self.trouble.values else ways(self._instruments.histograms[semconv.FEATURE.name])
        return {}

    def close(self) -> None:
        """Observe nothing any more; OpenTelemetry has no way to take a callback off.

        Unless another one observes through the same provider by now.
        """
        if self._instruments.drain is self._drain:
            self._instruments.drain, self._instruments.sessions = None, None

    def _record(self, metric: semconv.Metric, values: Values, attributes: Attributes) -> None:
        if not values.numbers.size:
            return
        write = bulk.record_all if self.trouble.values else bulk.inject
        refused = write(self._instruments.histograms[metric.name], values.numbers, attributes, values.exemplar)
        give_way()
        if refused:
            JOURNAL.emit(ValuesDropped(reason="negative", count=refused))

    def _count(self, metric: semconv.Metric, counts: Mapping[str, int], base: Attributes, key: str) -> None:
        counter = self._instruments.counters[metric.name]
        for name, count in counts.items():
            counter.add(count, {**base, key: name}, NOWHERE)


def model_attributes(model: ModelKey) -> Attributes:
    """The attributes that every metric of a model carries."""
    attributes = {semconv.MODEL_NAME: model.name}
    if model.version:
        attributes[semconv.MODEL_VERSION] = model.version
    return attributes


def _trouble(provider: MeterProvider, instruments: _Instruments) -> Trouble:
    if not bulk.is_sdk(instruments.histograms[semconv.DURATION.name]):
        kind = type(provider)
        foreign = f"the meter provider is not OpenTelemetry's SDK but {kind.__module__}.{kind.__qualname__}"
        return Trouble(foreign, foreign)
    found = self_test()
    if not found.exemplars and bulk.has_exemplars_off(instruments.histograms[semconv.DURATION.name]):
        return found._replace(exemplars="the SDK's exemplar filter is always_off (OTEL_METRICS_EXEMPLAR_FILTER)")
    return found


def _real(instrument: Instrument) -> Instrument:
    """The SDK's instrument: a provider set later stands behind the API's proxy."""
    return getattr(instrument, "_real_instrument", None) or instrument


class _Instruments:
    """The instruments of one meter provider, made once: the SDK warns of a second of the same name."""

    def __init__(self, provider: MeterProvider) -> None:
        self.drain: Callable[[], object] | None = None
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
        self.histograms[metric.name] = _real(made)

    def _counter(self, meter: Meter, metric: semconv.Metric) -> None:
        self.counters[metric.name] = _real(meter.create_counter(metric.name, metric.unit, metric.description))

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
        return [Observation(total, dict(attributes), NOWHERE) for attributes, total in JOURNAL.totals(name).items()]

    def _observe_sessions(self, _: CallbackOptions) -> list[Observation]:
        counts: dict[ModelKey, int] = {}
        with guard("metrics"):
            for model in self.sessions() if self.sessions else ():
                counts[model] = counts.get(model, 0) + 1
        return [Observation(count, model_attributes(model), NOWHERE) for model, count in counts.items()]


_MADE: Final[weakref.WeakKeyDictionary[Any, _Instruments]] = weakref.WeakKeyDictionary()


def _instruments(provider: MeterProvider) -> _Instruments:
    found = _MADE.get(provider)
    if found is None:
        found = _Instruments(provider)
        _MADE[provider] = found
    return found
