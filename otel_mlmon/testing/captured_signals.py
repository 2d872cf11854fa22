"""Captures what an application would send, in memory, for tests of applications."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_mlmon import semconv
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.instrumentation.export.metrics import make_exponential_views
from otel_mlmon.instrumentation.lifecycle import Handle, instrument, is_instrumented

FLUSH_TIMEOUT_S: Final = 10.0


class Captured:
    """The spans, events and metrics that an application has sent within one `with capture()` block of a test.

    Args:
        handle: Of the instrumentation.
        tracer_provider: For spans of the test itself, which become parents of the inference spans.
        exporters: Where spans and log records end up.
        reader: Where metrics are read, cumulative.
    """

    def __init__(
        self,
        handle: Handle,
        tracer_provider: TracerProvider,
        exporters: tuple[InMemorySpanExporter, InMemoryLogRecordExporter],
        reader: InMemoryMetricReader,
    ) -> None:
        self.handle = handle
        self.tracer_provider = tracer_provider
        self._spans, self._events = exporters
        self._reader = reader

    def flush(self) -> None:
        """Waits until all calls made so far have their spans, events and metrics."""
        self.handle.flush(FLUSH_TIMEOUT_S)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that ended so far, also those that the test itself has started."""
        return tuple(self._spans.get_finished_spans())

    @property
    def events(self) -> tuple[ReadableLogRecord, ...]:
        """The log records written so far; the events of predictions are among them."""
        return tuple(self._events.get_finished_logs())

    def metrics(self) -> dict[str, Metric]:
        """Returns the metrics of otel_mlmon by name, with everything that was counted so far."""
        self.flush()
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            if scope.scope.name == semconv.SCOPE
            for metric in scope.metrics
        }


@contextmanager
def capture(**options: Any) -> Iterator[Captured]:
    """Instruments the application in a `with` block of a test, and keeps its spans, events and metrics in memory.

    By default every call gets a span and an event, and values of features leave however few they are.

    Raises:
        ConfigurationError: The process is instrumented already, or an option is refused.
    """
    if is_instrumented():
        raise ConfigurationError("capture() needs a process that is not instrumented: call uninstrument() first.")
    spans, events, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()  # type: ignore[no-untyped-call]
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    logger_provider = LoggerProvider(shutdown_on_exit=False)
    logger_provider.add_log_record_processor(SimpleLogRecordProcessor(events))
    meter_provider = MeterProvider(metric_readers=[reader], views=make_exponential_views(), shutdown_on_exit=False)
    everything = {"span_ratio": 1.0, "spans_per_second": 1e9, "events_per_second": 1e9, "min_new_values": 1}
    handle = instrument(
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        **{**everything, **options},
    )
    try:
        yield Captured(handle, tracer_provider, (spans, events), reader)
    finally:
        handle.shutdown(FLUSH_TIMEOUT_S)
        for provider in (tracer_provider, meter_provider, logger_provider):
            provider.shutdown()
