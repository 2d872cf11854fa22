"""Exports the CPU and memory metrics of the process, if OpenTelemetry's system-metrics package is installed."""

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


def start_process_metrics(meter_provider: Any) -> Any:
    """Starts metrics of the process's CPU and memory; returns the instrumentor that stops them, or None.

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
