"""A small service for `gunicorn tests.support.serving:app`: one inference a request, instrumented when imported."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import otel_mlmon

otel_mlmon.instrument(spans_per_second=0.0, events_per_second=0.0)


DONE = Path(os.environ["DONE"]) if "DONE" in os.environ else None
"""A file that gets a character a call."""


@functools.cache
def session() -> Any:
    """Creates the session at the first call, without threads of its own, which would not survive a fork."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(files("otel_mlmon.demo") / "digits.onnx"), options)


def predict() -> None:
    """Runs one inference."""
    session().run(None, {"image": np.full((1, 1, 8, 8), 0.5, dtype=np.float32)})
    if DONE is not None:
        with DONE.open("a") as file:
            file.write("x")


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Serves one inference a request as a WSGI application."""
    predict()
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", "2")])
    return [b"ok"]
