"""`python -m otel_mlmon.demo.service`: an ordinary program that serves a model, instrumented by one line.

Protocol: it prints `{"event": "ready"}` when the model is loaded, then serves images at a steady rate. A line on
standard input names the act from then on; the end of input ends the program, which prints the number of images it
served. The standard `OTEL_*` variables say where the telemetry goes.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TextIO

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import otel_mlmon
from otel_mlmon.demo.traffic import SCENES, ImageTraffic, load_images

MODEL_FILE: Final = Path(__file__).with_name("digits.onnx")
RATE_PER_S: Final = 400
GROUP_S: Final = 0.01
"""The time between small groups of images: a timer for each image would be coarser than a call is long."""

SEED: Final = 20


class ActReader:
    """Reads the names of the demo's acts from the standard input, and knows the current act.

    Runs on: `follow_lines` on a thread of its own, everything else on any thread.
    """

    def __init__(self, first: str = "learning") -> None:
        self.current: str = first
        self.over: Final = threading.Event()
        """Set when the input has ended."""

    def follow_lines(self, lines: Iterable[str]) -> None:
        """Reads the name of the next act from each line until the lines end; ignores other lines."""
        try:
            for line in lines:
                name = line.strip()
                if name in SCENES:
                    self.current = name
        finally:
            self.over.set()


def serve_model(
    predict: Callable[[NDArray[np.float32]], object],
    traffic: ImageTraffic,
    acts: ActReader,
    *,
    rate_per_s: float = RATE_PER_S,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Calls the model with one image after another at a steady rate, until the last act of the demo is over.

    After a delay of the machine no burst follows.

    Returns:
        The number of images served.
    """
    served = 0
    per_group = max(1, round(rate_per_s * GROUP_S))
    due_s = clock()
    while not acts.over.wait(max(0.0, due_s - clock())):
        for image in traffic.draw_images(per_group, acts.current):
            predict(image[np.newaxis])
        served += per_group
        due_s = max(due_s + per_group / rate_per_s, clock() - GROUP_S)
    return served


def main(lines: TextIO = sys.stdin, output: TextIO = sys.stdout) -> None:
    """Loads the demo's model, serves it until the input ends, and prints a JSON line at the start and the end."""
    handle = otel_mlmon.instrument()
    session = onnxruntime.InferenceSession(str(MODEL_FILE), providers=["CPUExecutionProvider"])
    traffic = ImageTraffic(*load_images(), np.random.default_rng(SEED))
    acts = ActReader()
    threading.Thread(target=acts.follow_lines, args=(lines,), name="acts", daemon=True).start()
    _print_event(output, event="ready")
    served = serve_model(lambda image: session.run(None, {"image": image}), traffic, acts)
    handle.shutdown(2.0)
    _print_event(output, event="done", predictions=served)


def _print_event(output: TextIO, **fields: object) -> None:
    output.write(json.dumps(fields) + "\n")
    output.flush()


if __name__ == "__main__":
    main()
