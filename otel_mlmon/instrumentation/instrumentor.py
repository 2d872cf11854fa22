"""The entry point of `opentelemetry-instrument` and of OpenTelemetry's configuration file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_mlmon.instrumentation.settings import InstrumentationSettings, ModelOptions, configuration_type

DISTRIBUTIONS: Final = (
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


class OnnxRuntimeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """`otel_mlmon.instrument()` for `opentelemetry-instrument`, which finds it by its entry point."""

    configuration: ClassVar[type[Any]] = Configuration

    def instrumentation_dependencies(self) -> Collection[str]:
        """Returns the distributions of onnxruntime, any of which suffices."""
        return DISTRIBUTIONS

    def _check_dependency_conflicts(self) -> None:
        """Reports no conflict: a private build has any name, and `instrument` logs it if the module is missing."""

    def _instrument(self, **options: Any) -> None:
        # An exception here would keep every instrumentation after this one from being loaded.
        from otel_mlmon.guard import guard

        with guard("instrument"):
            from otel_mlmon.instrumentation.lifecycle import instrument

            arguments = {name: value for name, value in options.items() if value is not None}
            # A configuration file has mappings where code has `ModelOptions`.
            arguments["models"] = {
                name: ModelOptions(**entry) if isinstance(entry, Mapping) else entry
                for name, entry in arguments.get("models", {}).items()
            }
            instrument(**arguments)

    def _uninstrument(self, **_: Any) -> None:
        from otel_mlmon.instrumentation.lifecycle import uninstrument

        uninstrument()
