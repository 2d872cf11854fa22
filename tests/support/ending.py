"""A program that runs a model and ends: `python -m tests.support.ending`; prints how long its end took.

The clock runs from the end of the program's own code to the last function of `atexit`, so that neither imports nor the
interpreter's own end count.
"""

from __future__ import annotations

import atexit
import sys
import time

import numpy as np
import onnxruntime as ort

import otel_mlmon
from tests.support import models


def main() -> None:
    """Runs fifty calls and ends without waiting for anything."""
    ended_s: list[float] = []
    # Functions registered first are called last.
    atexit.register(lambda: sys.stdout.write(f"{time.monotonic() - ended_s[0]}\n"))
    session = ort.InferenceSession(models.classifier())
    otel_mlmon.instrument()
    for _ in range(50):
        session.run(None, {"input": np.ones((1, 10), np.float32)})
    ended_s.append(time.monotonic())


if __name__ == "__main__":
    main()
