"""What `opentelemetry-instrument` finds by its entry point, and OpenTelemetry's configuration file by its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_mlmon.instrumentation import DISTRIBUTIONS, Configuration
from otel_mlmon.instrumentation.settings import ModelOptions


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
            from otel_mlmon.instrumentation.lifecycle import instrument

            given = {name: value for name, value in options.items() if value is not None}
            # A configuration file has mappings where code has `ModelOptions`.
            given["models"] = {
                name: ModelOptions(**said) if isinstance(said, Mapping) else said
                for name, said in given.get("models", {}).items()
            }
            instrument(**given)

    def _uninstrument(self, **_: Any) -> None:
        from otel_mlmon.instrumentation.lifecycle import uninstrument

        uninstrument()
