"""`python -m otel_mlmon.demo.service`: an ordinary program around onnxruntime, with one line of ours.

Protocol: it prints `{"event": "ready"}` when the model is loaded, then serves images at a steady rate. A line
on standard input is the name of the act from then on; the end of input ends the program, which prints how
many images it served. Where the telemetry goes is in the standard `OTEL_*` variables.
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
from otel_mlmon.demo.traffic import SCENES, Traffic, load_images

MODEL_FILE: Final = Path(__file__).with_name("digits.onnx")
RATE_PER_S: Final = 400
GROUP_S: Final = 0.01
"""Images come in small groups, this far apart: a timer for each would be coarser than the calls are long."""

SEED: Final = 20


class Acts:
    """The act that is on, as told line by line.

    Runs on: `follow` on a thread of its own, the rest on any.
    """

    def __init__(self, first: str = "learning") -> None:
        self.current: str = first
        self.over: Final = threading.Event()
        """Set when the input has ended."""

    def follow(self, lines: Iterable[str]) -> None:
        """Change acts as the lines say, until they end. A line that names no act is passed over."""
        try:
            for line in lines:
                name = line.strip()
                if name in SCENES:
                    self.current = name
        finally:
            self.over.set()


def serve(
    predict: Callable[[NDArray[np.float32]], object],
    traffic: Traffic,
    acts: Acts,
    *,
    rate_per_s: float = RATE_PER_S,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Give `predict` one image at a time, shape (1, 1, 8, 8), at `rate_per_s`, until the acts are over.

    A delay of the machine is not made up for by a burst: what was missed stays missed.

    Returns:
        How many images were served.
    """
    served = 0
    per_group = max(1, round(rate_per_s * GROUP_S))
    due_s = clock()
    while not acts.over.wait(max(0.0, due_s - clock())):
        for image in traffic.draw(per_group, acts.current):
            predict(image[np.newaxis])
        served += per_group
        due_s = max(due_s + per_group / rate_per_s, clock() - GROUP_S)
    return served


def main(lines: TextIO = sys.stdin, answers: TextIO = sys.stdout) -> None:
    """Load the model, say so, serve until `lines` end, say how much."""
    handle = otel_mlmon.instrument()
    session = onnxruntime.InferenceSession(str(MODEL_FILE), providers=["CPUExecutionProvider"])
    traffic = Traffic(*load_images(), np.random.default_rng(SEED))
    acts = Acts()
    threading.Thread(target=acts.follow, args=(lines,), name="acts", daemon=True).start()
    _tell(answers, event="ready")
    served = serve(lambda image: session.run(None, {"image": image}), traffic, acts)
    handle.shutdown(2.0)
    _tell(answers, event="done", predictions=served)


def _tell(answers: TextIO, **facts: object) -> None:
    answers.write(json.dumps(facts) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
