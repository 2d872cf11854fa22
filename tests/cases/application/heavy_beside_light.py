"""A model with outputs of 64 KB is called once 1,500 small calls of another one wait to be read.

The waiting calls weigh less than a megabyte; the buffer's limit is 16 MB. The heavy model's 20 calls weigh 1.3 MB.
All fit: none may be dropped. If something must be dropped, counting it is not enough when it is always the same
model.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

import otel_mlmon
from tests.cases import support

LIGHT_CALLS, HEAVY_CALLS = 1500, 20


def session(directory: str, name: str, output: str, width: int) -> onnxruntime.InferenceSession:
    path = Path(directory) / f"{name}.onnx"
    path.write_bytes(support.identity_model({output: ("float32", ["N", width])}))
    return onnxruntime.InferenceSession(str(path))


def main() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    checks = support.Checks()
    reader = InMemoryMetricReader()
    with tempfile.TemporaryDirectory() as directory:
        handle = otel_mlmon.instrument(meter_provider=MeterProvider([reader]))
        light, heavy = session(directory, "light", "p", 4), session(directory, "heavy", "logits", 1000)
        small = {"in_p": np.full((1, 4), 0.25, "f4")}
        large = {"in_logits": np.random.default_rng(0).normal(size=(16, 1000)).astype("f4")}
        light.run(None, small)
        heavy.run(None, large)
        time.sleep(1.3)  # the worker has read the first calls
        for _ in range(LIGHT_CALLS):
            light.run(None, small)
        for _ in range(HEAVY_CALLS):
            heavy.run(None, large)
        handle.flush(10)
        dropped = dict(handle.status().dropped_calls)
        handle.shutdown(2)
    checks.that(f"none of {LIGHT_CALLS + HEAVY_CALLS + 2} calls dropped", not any(dropped.values()), dropped or "none")
    checks.finish()


if __name__ == "__main__":
    main()
