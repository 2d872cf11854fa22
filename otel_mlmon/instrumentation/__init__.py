"""The application half: runs inside the application's process, from its inference calls to OpenTelemetry.

In: calls of a model, such as `onnxruntime.InferenceSession.run`. Out: the spans, metrics and events of `semconv`. One
folder is one step (runtime, queue, decode, aggregate, export); only `pipeline.py` joins them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_mlmon.instrumentation.settings import InstrumentationSettings, configuration_type

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


Configuration: Final = configuration_type(InstrumentationSettings, "Configuration", __name__)
"""The section `onnxruntime` of OpenTelemetry's configuration file: the options of `otel_mlmon.instrument` by name."""


def __getattr__(name: str) -> Any:
    """The instrumentor, where the entry point looks for it; loaded then, since its base class takes 30 ms to import."""
    if name != "OnnxRuntimeInstrumentor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from otel_mlmon.instrumentation.instrumentor import OnnxRuntimeInstrumentor

    return OnnxRuntimeInstrumentor
