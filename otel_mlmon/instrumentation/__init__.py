"""The application half: inside the host's process, from its calls to OpenTelemetry.

In: calls to `onnxruntime.InferenceSession.run`. Out: spans, metrics and events of `otel_mlmon.semconv`. One folder is
one step (call, buffer, record, aggregate, signals); `pipeline.py` is the only file that joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_mlmon.instrumentation.settings import ModelOptions

DISTRIBUTIONS = (
    "onnxruntime >= 1.17",
    "onnxruntime-gpu >= 1.17",
    "onnxruntime-directml >= 1.17",
    "onnxruntime-openvino >= 1.17",
    "onnxruntime-qnn >= 1.17",
    "onnxruntime-rocm >= 1.17",
    "onnxruntime-training >= 1.17",
)
"""Any one of these brings the module `onnxruntime`."""


@dataclass(kw_only=True)
class Configuration:
    """The options of OpenTelemetry's configuration file, by the names of `otel_mlmon.instrument`; None is not set."""

    models: Mapping[str, ModelOptions] = field(default_factory=dict)
    model_name: str | Callable[[Any], str] | None = None
    span_ratio: float | None = None
    spans_per_second: float | None = None
    events_per_second: float | None = None
    latency_budget_s: float | None = None
    confidence_floor: float | None = None
    max_labels: int | None = None
    max_features: int | None = None
    buffer_records: int | None = None
    buffer_bytes: int | None = None
    flush_interval_s: float | None = None
    shutdown_timeout_s: float | None = None
    sentry: str | None = None
    sentry_traces_sample_rate: float | None = None
    sentry_dsn: str | None = None
    onnxruntime_telemetry: bool | None = None


class OnnxRuntimeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """`otel_mlmon.instrument()` for `opentelemetry-instrument`, which finds it by its entry point."""

    configuration: ClassVar[type[Configuration]] = Configuration

    def instrumentation_dependencies(self) -> Collection[str]:
        """The distributions of onnxruntime, any of which will do."""
        return DISTRIBUTIONS

    def _check_dependency_conflicts(self) -> None:
        """None: a build of one's own has any name, and `instrument` says itself if the module is missing."""

    def _instrument(self, **options: Any) -> None:
        # An exception here would keep every instrumentation after this one from being loaded.
        from otel_mlmon.guard import guard

        with guard("instrument"):
            from otel_mlmon.instrumentation.handle import instrument

            given = {name: value for name, value in options.items() if value is not None}
            # A configuration file has mappings where code has `ModelOptions`.
            given["models"] = {
                name: ModelOptions(**said) if isinstance(said, Mapping) else said
                for name, said in given.get("models", {}).items()
            }
            instrument(**given)

    def _uninstrument(self, **_: Any) -> None:
        from otel_mlmon.instrumentation.handle import uninstrument

        uninstrument()
