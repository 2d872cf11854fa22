"""Exports the processor's results as OTLP with the SDK's exporters: gauges at an interval, and events.

In: `MetricValue` and events of the processor. Out: OTLP under the scope `otel_mlmon.processor`, which the receiver
drops, so that a Collector that sends it back makes no loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.self_telemetry import MetricValue
from otel_mlmon.version import __version__

OtlpProtocol = Literal["grpc", "http/protobuf"]

EXPORT_TIMEOUT_S: Final = 10.0
EVENT_DELAY_S: Final = 1.0
"""How long an event waits at most to be sent together with others."""

_SEVERITIES: Final = {
    "INFO": SeverityNumber.INFO,
    "WARN": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
}


class OtlpForwarder:
    """Sends the processor's gauges over OTLP at an interval, and its events soon after they happen.

    Runs on: two threads of the SDK. While an endpoint is down data is lost, but callers never wait.

    Args:
        endpoint: `http://host:port` or `https://host:port`; without a scheme it is http.
        protocol: The protocol of the endpoint.
        read: Returns all present values; a series that it no longer returns is no longer sent. Called once a gauge.
        interval_s: Between two exports of the gauges, in seconds, above 0.
        resource: Resource attributes of the processor; `service.instance.id` must be unique to this process, since
            every series has one writer.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        protocol: OtlpProtocol,
        read: Callable[[], Iterable[MetricValue]],
        interval_s: float,
        resource: Mapping[str, str],
    ) -> None:
        self._read = read
        self._metric_exporter, self._log_exporter = _create_exporters(endpoint, protocol)
        self.failed_exports = 0
        """Requests with events that the endpoint did not take."""
        self._export_events = self._log_exporter.export
        self._log_exporter.export = self._count_failed_exports
        sdk_resource = Resource.create(dict(resource))
        self._meters = MeterProvider(
            resource=sdk_resource,
            shutdown_on_exit=False,
            metric_readers=[
                PeriodicExportingMetricReader(
                    self._metric_exporter,
                    export_interval_millis=interval_s * 1000,
                    export_timeout_millis=EXPORT_TIMEOUT_S * 1000,
                )
            ],
        )
        self._loggers = LoggerProvider(resource=sdk_resource, shutdown_on_exit=False)
        self._loggers.add_log_record_processor(
            BatchLogRecordProcessor(self._log_exporter, schedule_delay_millis=EVENT_DELAY_S * 1000)
        )
        self._logger = self._loggers.get_logger(semconv.PROCESSOR_SCOPE, __version__)
        meter = self._meters.get_meter(semconv.PROCESSOR_SCOPE, __version__)
        for metric in semconv.PROCESSOR_METRICS:
            meter.create_observable_gauge(
                metric.name,
                callbacks=[self._make_gauge_callback(metric)],
                unit=metric.unit,
                description=metric.description,
            )

    def emit_event(
        self,
        name: str,
        severity: Literal["INFO", "WARN", "ERROR"],
        body: str,
        attributes: Mapping[str, str | int | float | bool],
        time_ns: int,
    ) -> None:
        """Queues an event to be sent over OTLP; the oldest one is dropped where the queue is full.

        Runs on: any thread; does not wait.
        """
        with guard("serve.otlp.event"):
            self._logger.emit(
                LogRecord(
                    timestamp=time_ns,
                    observed_timestamp=time_ns,
                    severity_number=_SEVERITIES[severity],
                    severity_text=severity,
                    body=body,
                    attributes=dict(attributes),
                    event_name=name,
                )
            )

    def shutdown(self, timeout_s: float) -> bool:
        """Sends the remaining gauges and events, and stops; returns whether that ended within `timeout_s` seconds.

        The SDK's own time-outs do not bound a call to a dead endpoint, so such a call is left behind on its thread.
        """
        deadline = time.monotonic() + timeout_s
        steps = (lambda: self._meters.shutdown(timeout_millis=timeout_s * 1000), self._loggers.shutdown)
        threads = [threading.Thread(target=_run_guarded, args=(step,), daemon=True) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        is_done = not any(thread.is_alive() for thread in threads)
        if not is_done:
            threading.Thread(target=_run_guarded, args=(self._stop_retries,), daemon=True).start()
        return is_done

    def _make_gauge_callback(self, metric: semconv.Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            with guard("serve.otlp.read"):
                return [
                    Observation(entry.value, dict(entry.attributes)) for entry in self._read() if entry.metric == metric
                ]
            return []

        return observe

    def _count_failed_exports(self, batch: Any) -> Any:
        result = self._export_events(batch)
        self.failed_exports += result.name != "SUCCESS"
        return result

    def _stop_retries(self) -> None:
        """Ends the retries of an OTLP export that hangs."""
        self._log_exporter.shutdown()
        self._metric_exporter.shutdown()


def _run_guarded(step: Callable[[], Any]) -> None:
    with guard("serve.otlp.shutdown"):
        step()


def _create_exporters(endpoint: str, protocol: OtlpProtocol) -> tuple[Any, Any]:
    """Creates the SDK's OTLP exporters of metrics and of logs."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    if protocol == "grpc":
        is_insecure = not url.startswith("https://")
        return (
            GrpcMetricExporter(endpoint=url, insecure=is_insecure, timeout=EXPORT_TIMEOUT_S),
            GrpcLogExporter(endpoint=url, insecure=is_insecure, timeout=EXPORT_TIMEOUT_S),
        )
    base = url.rstrip("/")
    return (
        HttpMetricExporter(endpoint=f"{base}/v1/metrics", timeout=EXPORT_TIMEOUT_S),
        HttpLogExporter(endpoint=f"{base}/v1/logs", timeout=EXPORT_TIMEOUT_S),
    )
