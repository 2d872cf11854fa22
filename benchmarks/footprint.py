"""Measures what the package costs: time and memory of the import, and memory over many calls, in own processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

BEFORE = "import numpy, opentelemetry.sdk.trace, opentelemetry.sdk.metrics, opentelemetry.sdk._logs"
"""What a program that runs onnxruntime and sends telemetry has loaded anyway; onnxruntime itself loads numpy."""

IMPORT = """
import json, resource, sys, time
{before}
def rss_kb():
    return int(open("/proc/self/statm").read().split()[1]) * 4
started, held = time.perf_counter(), rss_kb()
import otel_mlmon
otel_mlmon.instrument  # loaded at its first use
print(json.dumps([(time.perf_counter() - started) * 1000, (rss_kb() - held) / 1024]))
"""

CALLS = """
import json, sys
import numpy as np, onnxruntime
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
import otel_mlmon
from tests.support import models

def rss_kb():
    return int(open("/proc/self/statm").read().split()[1]) * 4

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
reader = InMemoryMetricReader()
handle = otel_mlmon.instrument(
    tracer_provider=TracerProvider(), meter_provider=MeterProvider([reader]), logger_provider=LoggerProvider()
)
session = onnxruntime.InferenceSession(models.classifier(), options)
feeds = [{{"input": np.random.default_rng(n).random((1, 10), dtype=np.float32)}} for n in range(64)]
held = []
for step in range({steps}):
    for call in range({calls}):
        session.run(None, feeds[call & 63])
    reader.get_metrics_data()
    held.append(rss_kb() / 1024)
status = handle.status()
dropped = sum(status.dropped_calls.values())
print(json.dumps([held, status.recorded_calls + status.waiting_calls + dropped, dropped]))
"""


@dataclass(frozen=True, kw_only=True)
class Import:
    """The cost of the import over that of the OpenTelemetry SDK itself."""

    ms: float
    mb: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The resident memory while a model is called."""

    held_mb: list[float]
    """After each step."""
    calls: int
    """Recorded or dropped; all of them."""
    dropped: int


def _child(program: str) -> list[float]:
    environ = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process compiles what it imports
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def import_cost(times: int = 11) -> Import:
    """Measures the import in `times` processes; returns medians."""
    figures = [_child(IMPORT.format(before=BEFORE)) for _ in range(times)]
    return Import(ms=statistics.median(ms for ms, _ in figures), mb=statistics.median(mb for _, mb in figures))


def memory(steps: int = 10, calls: int = 1_000_000) -> Memory:
    """Measures the memory of a process that calls the small model steps · calls times."""
    held, total, dropped = _child(CALLS.format(steps=steps, calls=calls))
    return Memory(held_mb=held, calls=int(total), dropped=int(dropped))  # type: ignore[arg-type]
