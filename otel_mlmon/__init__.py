"""OpenTelemetry monitoring for machine-learning models.

    import otel_mlmon
    otel_mlmon.instrument()

Where the data goes, one folder a step:

    in the application                                    beside the Collector
    ──────────────────                                    ────────────────────
    instrumentation/                                      processor/
      runtime    calls, copied on the caller's thread       receive  data points, out of OTLP
      queue      a bounded queue, and its worker           window   counts over time, and a reference
      decode     labels, confidences, values, features      detect   evidence against the reference
      aggregate  many calls as one                          alert    rules and their states
      export     spans, metrics, events ───── OTLP ─────▶   notify   messages to people

Importing this package reads no environment, file or network, and loads neither onnxruntime nor an exporter; the names
below are loaded when they are first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from otel_mlmon.version import __version__

if TYPE_CHECKING:
    from otel_mlmon.errors import ConfigurationError, MlmonError
    from otel_mlmon.instrumentation.instrumentor import OnnxRuntimeInstrumentor
    from otel_mlmon.instrumentation.lifecycle import Handle, instrument, uninstrument
    from otel_mlmon.instrumentation.lifespan import flush_on_shutdown
    from otel_mlmon.instrumentation.runtime.manual import Prediction, observe
    from otel_mlmon.instrumentation.settings import ModelOptions
    from otel_mlmon.instrumentation.status import Status

__all__ = [
    "ConfigurationError",
    "Handle",
    "MlmonError",
    "ModelOptions",
    "OnnxRuntimeInstrumentor",
    "Prediction",
    "Status",
    "__version__",
    "flush_on_shutdown",
    "instrument",
    "observe",
    "uninstrument",
]

_HOMES: Final = {
    "ConfigurationError": "otel_mlmon.errors",
    "Handle": "otel_mlmon.instrumentation.lifecycle",
    "MlmonError": "otel_mlmon.errors",
    "ModelOptions": "otel_mlmon.instrumentation.settings",
    "OnnxRuntimeInstrumentor": "otel_mlmon.instrumentation.instrumentor",
    "Prediction": "otel_mlmon.instrumentation.runtime.manual",
    "Status": "otel_mlmon.instrumentation.status",
    "flush_on_shutdown": "otel_mlmon.instrumentation.lifespan",
    "instrument": "otel_mlmon.instrumentation.lifecycle",
    "observe": "otel_mlmon.instrumentation.runtime.manual",
    "uninstrument": "otel_mlmon.instrumentation.lifecycle",
}


def __getattr__(name: str) -> Any:
    """Imports a public name of the package `otel_mlmon` when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names of the package `otel_mlmon`."""
    return sorted(__all__)
