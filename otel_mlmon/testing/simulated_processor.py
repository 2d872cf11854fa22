"""Runs the drift detection and the alert rules of the processor in a test, on a clock that the test moves."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.document import build_alert_document
from otel_mlmon.processor.alert.message import format_alert
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.notify.dispatcher import OutboxEntry
from otel_mlmon.processor.pipeline import ProcessorPipeline
from otel_mlmon.processor.receive.data_point import DecodedRequest
from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.processor.receive.decode_logs import decode_logs
from otel_mlmon.processor.self_telemetry import SelfTelemetry
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.window.reference_export import RelearnRequest
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey
from otel_mlmon.vocabulary import build_label_attributes

START_NS: Final = 1_767_225_600 * 10**9
"""The default start of a simulation: 2026-01-01 00:00 UTC, Unix nanoseconds."""

SECOND_NS: Final = 10**9

Request = ExportMetricsServiceRequest | ExportLogsServiceRequest


class SimulatedProcessor:
    """A processor for tests, without sockets and threads, to which a test sends telemetry and which it asks for alerts.

    What it decides is what a real processor with the same configuration decides of the same telemetry. Its state is
    in a temporary directory, which `close` removes.

    Runs on: one thread.

    Args:
        configuration: The processor's configuration as the YAML file has it, as nested mappings; None for the defaults.
        start_ns: The first moment of the simulated clock, Unix nanoseconds.

    Raises:
        ConfigurationError: The configuration is wrong; it names every fault.
    """

    def __init__(self, configuration: Mapping[str, Any] | None = None, *, start_ns: int = START_NS) -> None:
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        file = Path(self._directory.name) / "mlmon.yaml"
        storage = {"path": str(Path(self._directory.name) / "data")}
        file.write_text(
            json.dumps({**(configuration or {}), "storage": {**_read_storage_section(configuration), **storage}})
        )
        try:
            self._config = load_config(file, {})
        except BaseException:
            self._directory.cleanup()
            raise
        self.now_ns = start_ns
        """The simulated clock, Unix nanoseconds. A test may set it; `advance` moves it and does what is due."""
        self.alerts: list[Alert] = []
        """Every change of state that a notifier would have received, in order; `time_ns` is the simulated time."""
        self.events: list[tuple[str, str, dict[str, str | int | float | bool]]] = []
        """Every event about a new version that `forward.endpoint` would have received: name, body, attributes."""
        self._open_pipeline()

    @property
    def messages(self) -> list[str]:
        """The text of each alert so far, as a recipient would read it."""
        return [format_alert(alert) for alert in self.alerts]

    def receive(self, request: Request) -> DecodedRequest:
        """Receives one OTLP request, as if an application had sent it; returns how many points were accepted."""
        is_logs = isinstance(request, ExportLogsServiceRequest)
        decoded = decode_logs(request) if is_logs else decode_metrics(request)
        self._pipeline.apply(decoded.items)
        return decoded

    def send_counts(
        self,
        model: str,
        *,
        version: str = "1",
        environment: str = "",
        sender: str = "sender-1",
        interval_s: float | None = None,
        labels: Mapping[str, int] | None = None,
        confidences: Sequence[float] = (),
        values: Sequence[float] = (),
        features: Mapping[str, Sequence[float] | Mapping[str, int]] | None = None,
        missing: Mapping[str, int] | None = None,
        durations_s: Sequence[float] = (),
        failed_durations_s: Sequence[float] = (),
    ) -> None:
        """Sends what one process counted of a model's predictions and inputs in the interval that ends now.

        Args:
            model: Its name.
            version: Its version.
            environment: `deployment.environment.name` of the sender.
            sender: `service.instance.id` of the process.
            interval_s: Length of the interval, above 0; by default one pane of the configuration.
            labels: Predictions by label.
            confidences: Confidences of predictions, [0, 1].
            values: Values of a regression.
            features: By name, the finite values of a numeric feature, or the counts of a categorical one by value.
            missing: Missing values by feature.
            durations_s: Seconds of calls that succeeded.
            failed_durations_s: Seconds of calls that failed.
        """
        length_ns = round((self._config.windows.pane_s if interval_s is None else interval_s) * SECOND_NS)
        telemetry = MetricsRequestBuilder(
            ModelKey(model, version, environment), sender=sender, start_ns=self.now_ns - length_ns, end_ns=self.now_ns
        )
        for label, count in (labels or {}).items():
            telemetry.add_counter_point(
                semconv.PREDICTIONS, count, build_label_attributes(semconv.PREDICTION_LABEL, label)
            )
        for feature, count in (missing or {}).items():
            telemetry.add_counter_point(semconv.MISSING_VALUES, count, {semconv.FEATURE_NAME: feature})
        numbers: list[tuple[semconv.Metric, Sequence[float], dict[str, str]]] = [
            (semconv.CONFIDENCE, confidences, {}),
            (semconv.VALUE, values, {}),
            (semconv.DURATION, durations_s, {}),
            (semconv.DURATION, failed_durations_s, {semconv.ERROR_TYPE: "RuntimeError"}),
        ]
        for feature, counted in (features or {}).items():
            attributes = {semconv.FEATURE_NAME: feature}
            if isinstance(counted, Mapping):
                for category, count in counted.items():
                    names = build_label_attributes(semconv.FEATURE_VALUE, category)
                    telemetry.add_counter_point(semconv.CATEGORY, count, {**attributes, **names})
            else:
                numbers.append((semconv.FEATURE, counted, attributes))
        for metric, sequence, attributes in numbers:
            if len(sequence):
                telemetry.add_histogram_point(metric, sequence, attributes)
        self.receive(telemetry.request)

    def advance(self, seconds: float = 0.0) -> None:
        """Moves the clock of the test on, and evaluates everything that is due by then."""
        self.now_ns += round(seconds * SECOND_NS)
        self._pipeline.advance()
        self._pipeline.commit()
        self._pipeline.publish(is_busy=False)

    def relearn(self, model: str, *, version: str = "1", environment: str = "", streams: Sequence[str]) -> None:
        """Makes streams of a model learn their references again, as `otel-mlmon reference relearn` does."""
        request = RelearnRequest(model=ModelKey(model, version, environment), streams=tuple(streams))
        self._pipeline.apply((request,))
        self.advance()

    def restart(self) -> None:
        """Ends the processor, and starts another one on the same stored state."""
        self._pipeline.close()
        self._open_pipeline()

    def document(self) -> dict[str, Any]:
        """Returns the JSON documents of `/api/v1/models` and `/api/v1/alerts`: `{"models": {…}, "alerts": […]}`."""
        self._pipeline.publish(is_busy=False)
        return dict(self._pipeline.read())

    def stream(self, model: str, stream: str) -> dict[str, Any] | None:
        """Returns the API's JSON document of one stream of a model, such as `input.age`; None if there is none."""
        return _find_first_document(self._find_model_document(model)["streams"], "stream", stream)

    def stream_state(self, model: str, stream: str) -> str | None:
        """Returns the state of a model's stream, such as `learning`, `ok` or `drift`; None if there is none."""
        document = self.stream(model, stream)
        return None if document is None else str(document["state"])

    def rule_state(self, model: str, rule: str) -> str | None:
        """Returns the state of a model's alert rule, such as `ok` or `firing`; None before its first evaluation."""
        document = _find_first_document(self._find_model_document(model)["rules"], "rule", rule)
        return None if document is None else str(document["state"])

    def find_alerts(self, *, rule: str | None = None, about: str | None = None) -> list[Alert]:
        """Returns the alerts so far of one rule, or that name one stream among their causes."""
        return [
            alert
            for alert in self.alerts
            if (rule is None or alert.rule == rule)
            and (about is None or about in json.dumps(build_alert_document(alert)))
        ]

    def close(self) -> None:
        """Ends the simulated processor and deletes the temporary folder with its state."""
        self._pipeline.close()
        self._directory.cleanup()

    def __enter__(self) -> SimulatedProcessor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_pipeline(self) -> None:
        self._pipeline = ProcessorPipeline(
            ProcessorSettings(self._config),
            dispatcher=_AlertCollector(lambda alert: self.alerts.append(alert)),
            telemetry=SelfTelemetry(),
            emit_event=lambda name, _, body, attributes, __: self.events.append((name, body, attributes)),
            clock_ns=lambda: self.now_ns,
        )
        self._pipeline.open()

    def _find_model_document(self, model: str) -> dict[str, Any]:
        nothing: dict[str, Any] = {"streams": [], "rules": []}
        return dict(self.document()["models"].get(model, nothing))


class _AlertCollector:
    """Takes the alerts of the processor in a test, in place of the notifiers that would send them."""

    names = ("list",)

    def __init__(self, add: Callable[[Alert], None]) -> None:
        self._add = add
        self._settled: list[tuple[str, str]] = []

    def start(self, active: Iterable[Alert]) -> None:
        pass

    def submit(self, entry: OutboxEntry) -> None:
        self._add(entry.alert)
        self._settled.append(("list", entry.alert.key))

    def pop_settled(self) -> list[tuple[str, str]]:
        settled, self._settled = self._settled, []
        return settled

    def shutdown(self) -> None:
        pass


def _read_storage_section(configuration: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (configuration or {}).get("storage") or {}


def _find_first_document(documents: Iterable[dict[str, Any]], key: str, value: str) -> dict[str, Any] | None:
    return next((document for document in documents if document[key] == value), None)
