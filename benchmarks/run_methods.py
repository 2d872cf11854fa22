"""Measures what monitoring adds to each method that runs a model, with warm and with cold caches.

A service does other work between two calls, so that the interpreter's code and data are no longer in the core's own
caches: with cold caches some megabytes are read before each call, outside of what is timed.

Method: the bare and the instrumented method take turns, call by call, so that whatever else the machine does meets
both. A figure is the median over rounds of the difference of the two p50s of a round.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as `benchmarks` does

import argparse
import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnxruntime
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from benchmarks.hot_path import Measured, Run, ours
from tests.support import models

NAMES: Final = ("run", "run_with_ort_values", "run_with_iobinding", "run_with_ortvaluevector", "run_async")

EVICTED_BYTES: Final = 4 << 20
"""More than a core's own caches hold."""

CALLS: Final = {"warm": 2000, "cold": 400}
"""Calls of a block: fewer than wake the worker thread."""


def calls_of(session: Any, functions: Mapping[str, Callable[..., Any]]) -> dict[str, Run]:
    """Returns a call by each run method, on the CPU; the asynchronous one ends with its callback."""
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    rows = np.random.default_rng(0).random((1, 10), dtype=np.float32)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(rows)
    binding = session.io_binding()
    binding.bind_ortvalue_input(name, value)
    binding.bind_output(output)
    vector_type = onnxruntime.capi.onnxruntime_pybind11_state.OrtValueVector
    feeds = vector_type()
    feeds.push_back(value._ortvalue)
    options, devices = onnxruntime.RunOptions(), [onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()]
    is_running = threading.Lock()

    def callback(*_: object) -> None:
        is_running.release()

    def run_async() -> None:
        is_running.acquire()
        functions["run_async"](session, [output], {name: rows}, callback, None)
        with is_running:
            pass

    return {
        "run": lambda: functions["run"](session, [output], {name: rows}),
        "run_with_ort_values": lambda: functions["run_with_ort_values"](session, [output], {name: value}),
        "run_with_iobinding": lambda: functions["run_with_iobinding"](session, binding),
        "run_with_ortvaluevector": lambda: functions["run_with_ortvaluevector"](
            session, options, [name], feeds, [output], vector_type(), devices
        ),
        "run_async": run_async,
    }


def block(runs: tuple[Run, Run], calls: int, *, is_cold: bool) -> list[float]:
    """Returns the p50 of bare and of instrumented calls in nanoseconds."""
    clock, memory = time.perf_counter_ns, np.zeros(EVICTED_BYTES // 8)
    durations = np.empty((2, calls), dtype=np.int64)
    for index in range(calls):
        for turn, run in enumerate(runs):
            if is_cold:
                memory.sum()
            started = clock()
            run()
            durations[turn, index] = clock() - started
    return [float(value) for value in np.percentile(durations, 50, axis=1)]


def measure_run_methods(*, rounds: int) -> dict[tuple[str, str], dict[str, Measured]]:
    """Measures every run method bare and instrumented, by its name and the state of the caches."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2  # `run_async` needs a thread of onnxruntime's
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(models.classifier(), options, providers=["CPUExecutionProvider"])
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    tracers, loggers = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    kind = type(session)
    bare = calls_of(session, {name: getattr(kind, name) for name in NAMES})
    measured = {(name, caches): {"bare": Measured(), "otel_mlmon": Measured()} for caches in CALLS for name in NAMES}
    with ours(tracers, meters, loggers, flush_interval_s=3600.0) as handle:
        monitored = calls_of(session, {name: getattr(kind, name) for name in NAMES})
        for _ in range(rounds):
            for (name, caches), figures in measured.items():
                for _ in range(20):
                    bare[name](), monitored[name]()
                handle.flush(10)
                monitored[name]()  # the first call wakes the worker
                gc.collect()
                p50s_ns = block((bare[name], monitored[name]), CALLS[caches], is_cold=caches == "cold")
                for variant, p50_ns in zip(figures.values(), p50s_ns, strict=True):
                    variant.p50_ns.append(p50_ns)
    for provider in (tracers, meters, loggers):
        provider.shutdown()
    return measured


def added_us(figures: Mapping[str, Measured]) -> float:
    """Returns what monitoring adds to the p50 of a call, in microseconds."""
    pairs = zip(figures["otel_mlmon"].p50_ns, figures["bare"].p50_ns, strict=True)
    return statistics.median(cost - bare for cost, bare in pairs) / 1000


def method_rows(measured: Mapping[tuple[str, str], Mapping[str, Measured]]) -> list[str]:
    """Returns a table row a run method: bare p50 and what is added, with warm and with cold caches."""
    rows = []
    for name in NAMES:
        cells = []
        for caches in CALLS:
            figures = measured[name, caches]
            cells += [f"{statistics.median(figures['bare'].p50_ns) / 1000:.2f}", f"{added_us(figures):.2f}"]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return rows


HEADER: Final = (
    "| method | bare p50, warm | added | bare p50, cold | added |",
    "|---|--:|--:|--:|--:|",
)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.run_methods", description="What monitoring adds to each method.")
    parser.add_argument("--rounds", type=int, default=15)
    print("\n".join([*HEADER, *method_rows(measure_run_methods(rounds=parser.parse_args().rounds))]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
