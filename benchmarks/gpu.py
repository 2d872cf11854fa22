"""`python -m benchmarks.gpu`: every way to run a model on a CUDA device, bare and instrumented, side by side.

It needs onnxruntime-gpu and a device. It checks that results stay the same, that what is reported is right, that a
fallback is an event and that no call of eight threads is lost, and prints what monitoring adds to each way.

Ends with 0 if all is right, 1 if something is wrong, 2 if there is no CUDA provider or no device to run it on.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as `benchmarks` does

import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import otel_mlmon
from otel_mlmon.testing import capture

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
NO_DEVICE: Final = 2
ROUNDS: Final = 5
CALLS: Final = 300
THREADS: Final = 8
CALLS_A_THREAD: Final = 100

Run = Callable[[], object]


def convolutional_model(layers: int = 12, channels: int = 64, classes: int = 10) -> bytes:
    """Makes a classifier of images: `image` (N, 3, 224, 224) to `probabilities` (N, classes)."""
    generator = np.random.default_rng(0)
    nodes, weights, name, width = [], {}, "image", 3
    for layer in range(layers):
        kernel = generator.normal(size=(channels, width, 3, 3)) * np.sqrt(2 / (9 * width))
        weights[f"kernel{layer}"] = kernel.astype(np.float32)
        step = 2 if layer % 3 == 0 and layer < 9 else 1
        nodes += [
            helper.make_node(
                "Conv", [name, f"kernel{layer}"], [f"conv{layer}"], pads=[1, 1, 1, 1], strides=[step, step]
            ),
            helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"]),
        ]
        name, width = f"relu{layer}", channels
    weights["head"] = (generator.normal(size=(channels, classes)) / 2).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value, weight) for weight, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def device_runs(session: Any, model: bytes, image: np.ndarray) -> dict[str, Run]:
    """Makes every way to run the model on the device, by name."""
    on_device = onnxruntime.OrtValue.ortvalue_from_numpy(image, "cuda", 0)

    def bind(owner: Any, output: object) -> Any:
        binding = owner.io_binding()
        binding.bind_ortvalue_input("image", on_device)
        if isinstance(output, str):
            binding.bind_output("probabilities", output)
        else:
            binding.bind_ortvalue_output("probabilities", output)
        return binding

    to_device, to_host = bind(session, "cuda"), bind(session, "cpu")
    unsynchronized = onnxruntime.RunOptions()
    unsynchronized.add_run_config_entry("disable_synchronize_execution_providers", "1")
    recorded = onnxruntime.InferenceSession(model, providers=[(CUDA, {"enable_cuda_graph": "1"}), CPU])
    buffer = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 10), np.float32), "cuda", 0)
    replay = bind(recorded, buffer)
    return {
        "run": lambda: session.run(None, {"image": image}),
        "run_with_ort_values, on the device": lambda: session.run_with_ort_values(None, {"image": on_device}),
        "run_with_iobinding, to the device": lambda: session.run_with_iobinding(to_device),
        "run_with_iobinding, to the host": lambda: session.run_with_iobinding(to_host),
        "run_with_iobinding, not synchronized": lambda: session.run_with_iobinding(to_device, unsynchronized),
        "CUDA graph": lambda: recorded.run_with_iobinding(replay),
    }


def time_calls(run: Run) -> tuple[float, float]:
    """Times calls; returns p50 and p99.9 in microseconds."""
    gc.collect()
    durations_ns = np.empty(CALLS)
    for number in range(CALLS):
        started_ns = time.perf_counter_ns()
        run()
        durations_ns[number] = time.perf_counter_ns() - started_ns
    p50, p999 = np.percentile(durations_ns, [50, 99.9]) / 1000
    return float(p50), float(p999)


def print_costs(runs: Mapping[str, Run]) -> None:
    """Prints what monitoring adds to each way, the median over rounds of bare and instrumented blocks in turn."""
    bare: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    added: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            bare[name].append(time_calls(run))
        handle = otel_mlmon.instrument(
            tracer_provider=TracerProvider(shutdown_on_exit=False),
            meter_provider=MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False),
            logger_provider=LoggerProvider(shutdown_on_exit=False),
        )
        for name, run in runs.items():
            for _ in range(20):
                run()
            handle.flush(5)
            p50, p999 = time_calls(run)
            added[name].append((p50 - bare[name][-1][0], p999 - bare[name][-1][1]))
        handle.uninstrument()
    print("| method | bare p50, µs | added p50 | added p99.9 |\n|---|--:|--:|--:|")
    for name in runs:
        p50, p999 = (statistics.median(column) for column in zip(*added[name], strict=True))
        print(f"| {name} | {statistics.median(block[0] for block in bare[name]):.1f} | {p50:.1f} | {p999:.1f} |")


def check_signals(session: Any, model: bytes, image: np.ndarray, runs: Mapping[str, Run]) -> dict[str, bool]:
    """Checks results, spans, fallbacks and threads; returns whether each is right."""
    expected = session.run(None, {"image": image})[0]
    checks: dict[str, bool] = {}
    with capture() as captured:
        checks["run gives the same result"] = np.array_equal(session.run(None, {"image": image})[0], expected)
        for name in list(runs)[1:-1]:
            runs[name]()
        captured.flush()
        checks["every call is a span"] = len(captured.spans) == len(runs) - 1
    attributes = [dict(span.attributes or {}) for span in captured.spans]
    checks["the provider is CUDA"] = all(span["ml.execution_provider"] == CUDA for span in attributes)
    labels = {span.get("ml.prediction.label") for span in attributes}
    checks["labels are right or not reported"] = labels <= {None, str(int(expected.argmax()))}
    checks["run reports a label"] = str(int(expected.argmax())) in labels
    with capture() as captured:
        onnxruntime.InferenceSession(model, providers=[(CUDA, {"device_id": 99}), CPU])
        captured.flush()
    events = [event.log_record.event_name for event in captured.events]
    checks["a fallback to the CPU is an event"] = "ml.execution_provider.fallback" in events
    with capture() as captured:
        threads = [
            threading.Thread(target=lambda: [runs["run"]() for _ in range(CALLS_A_THREAD)]) for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        captured.flush()
        status = captured.handle.status()
    checks["no call of eight threads is lost"] = status.recorded_calls == THREADS * CALLS_A_THREAD
    return checks


def main() -> int:
    """Runs all of it."""
    if CUDA not in onnxruntime.get_available_providers():
        print(
            f"No {CUDA} in onnxruntime {onnxruntime.__version__}: nothing was measured or checked. "
            "Install onnxruntime-gpu on a machine with a CUDA device.",
            file=sys.stderr,
        )
        return NO_DEVICE
    getattr(onnxruntime, "preload_dlls", lambda: None)()
    onnxruntime.set_default_logger_severity(3)
    model = convolutional_model()
    session = onnxruntime.InferenceSession(model, providers=[CUDA, CPU])
    if session.get_providers()[0] != CUDA:
        print(f"{CUDA} found no device: nothing was measured or checked.", file=sys.stderr)
        return NO_DEVICE
    image = np.random.default_rng(1).random((1, 3, 224, 224), dtype=np.float32)
    runs = device_runs(session, model, image)
    for run in runs.values():
        for _ in range(20):
            run()
    print_costs(runs)
    checks = check_signals(session, model, image, runs)
    for check, is_right in checks.items():
        print(f"{'right' if is_right else 'WRONG'}: {check}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
