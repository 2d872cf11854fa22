"""A classifier says its classes in words, as scikit-learn's do. A new release of the service starts eight fresh
workers.

The model, the traffic and the shares of the twenty classes are as before; only the processes are new. That must raise
no alarm, from the first minute on: every deploy would be one, and people learn to look away after deploys, when they
are needed most. (The words are in the model's own graph; nothing needs to be learned about them.)

One worker teaches the reference; then eight fresh ones make three calls a second each, for 40 s.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cases import support

CLASSES = [f"class-{number:02d}" for number in range(20)]
CONFIGURATION = {
    "windows": {"pane": "1s", "lateness": "2s", "rolling": "1h"},
    "models": {"*": {"reference": {"learn": 3000}, "no_data": {"enabled": False}}},
}
WORKER = """
import sys, time
import numpy as np, onnxruntime, otel_mlmon
path, calls, rate, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
handle = otel_mlmon.instrument(model_name="shop", max_features=0, sentry="off")
session = onnxruntime.InferenceSession(path)
random, rows = np.random.default_rng(seed), np.eye(20, dtype="f4")
for _ in range(calls):
    session.run(None, {"scores": rows[random.integers(20)][None]})
    time.sleep(1 / rate)
handle.shutdown(5)
"""


def start(directory: Path, processor: support.Processor, calls: int, rate: float, seed: int) -> subprocess.Popen[bytes]:
    program = directory / "worker.py"
    program.write_text(WORKER)
    arguments = [str(directory / "model.onnx"), str(calls), str(rate), str(seed)]
    environment = support.environment_for_programs({**processor.environment, "OMP_NUM_THREADS": "1"})
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def status(processor: support.Processor) -> str | None:
    streams = processor.models().get("shop", {}).get("streams", [])
    states = (
        "calibrating" if stream["calibrating"] else stream["state"]
        for stream in streams
        if stream["stream"] == "prediction.label"
    )
    return next(states, None)


def told(processor: support.Processor) -> list[str]:
    import json

    alerts = json.loads(processor.get("/api/v1/alerts")[1])["alerts"]
    return [f"{each['rule']} {each['state']}: {each['text'].splitlines()[2].strip()}" for each in alerts]


def main() -> None:
    checks = support.Checks()
    workers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name, support.Processor(CONFIGURATION) as processor:
        directory = Path(name)
        (directory / "model.onnx").write_bytes(support.text_classifier(CLASSES))
        try:
            teacher = start(directory, processor, 7500, 500, seed=1)
            workers.append(teacher)
            teacher.wait(40)
            is_learned = support.wait_until(lambda: status(processor) in ("ok", "weak", "calibrating"), time_limit=20)
            checks.that(
                "a reference is learned, and nothing told",
                is_learned and not told(processor),
                f"{status(processor)}, {told(processor)}",
            )
            workers += [start(directory, processor, 120, 3, seed=10 + number) for number in range(8)]
            end = time.monotonic() + 44
            while time.monotonic() < end and not told(processor):
                time.sleep(1)
            checks.that("no alert about eight fresh workers", not told(processor), told(processor))
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.kill()
                worker.wait()
    checks.finish()


if __name__ == "__main__":
    main()
