"""Metrics of the process's CPU and memory, by OpenTelemetry's system-metrics instrumentation, if it is installed."""

from __future__ import annotations

import importlib.util
from typing import Any, Final

PROCESS_METRICS: Final[dict[str, list[str] | None]] = {
    "process.cpu.time": ["user", "system"],
    "process.cpu.utilization": ["user", "system"],
    "process.memory.usage": None,
    "process.memory.virtual": None,
}
"""The names of the process metrics, and the states of each; no metric of the whole machine."""


def start(meter_provider: Any) -> Any:
    """Starts to observe the process; returns the instrumentor, for `uninstrument`, or None if it is not installed.

    Its instrumentor is one a process: where the host uses it already, nothing is done.
    """
    if importlib.util.find_spec("opentelemetry.instrumentation.system_metrics") is None:
        return None
    from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor

    instrumentor = SystemMetricsInstrumentor(config=PROCESS_METRICS)
    if instrumentor.is_instrumented_by_opentelemetry:
        return None
    instrumentor.instrument(meter_provider=meter_provider)
    return instrumentor
