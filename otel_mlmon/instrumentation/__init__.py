"""The application half: inside the host's process, from its calls to OpenTelemetry.

In: calls to `onnxruntime.InferenceSession.run`. Out: spans, metrics and events of `otel_mlmon.semconv`. One folder is
one step (call, buffer, record, aggregate, signals); `pipeline.py` is the only file that joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_mlmon.instrumentation.settings import ModelOptions

if TYPE_CHECKING:
    from otel_mlmon.instrumentation.instrumentor import OnnxRuntimeInstrumentor

__all__ = ["DISTRIBUTIONS", "Configuration", "OnnxRuntimeInstrumentor"]

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
    latency_threshold_s: float | None = None
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


def __getattr__(name: str) -> Any:
    """The instrumentor, where the entry point looks for it; loaded then, since its base class takes 30 ms to import."""
    if name != "OnnxRuntimeInstrumentor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from otel_mlmon.instrumentation.instrumentor import OnnxRuntimeInstrumentor

    return OnnxRuntimeInstrumentor
