"""Runs one inference by each of the five run methods, as a host does it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnxruntime as ort

DEADLINE_S: Final = 10.0
C: Final = ort.capi.onnxruntime_pybind11_state

Run = Callable[[Any, np.ndarray], list[np.ndarray]]


def run(session: Any, rows: np.ndarray) -> list[np.ndarray]:
    """Runs one inference by `run`."""
    return list(session.run(None, {session.get_inputs()[0].name: rows}))


class Waiting:
    """A callback of `run_async` that keeps its arguments and its thread."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.thread = 0
        self._has_come = threading.Event()

    def __call__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.thread = threading.get_ident()
        self._has_come.set()

    def wait(self) -> tuple[Any, ...]:
        """What it was given."""
        assert self._has_come.wait(DEADLINE_S)
        return self.arguments


def run_async(session: Any, rows: np.ndarray) -> list[np.ndarray]:
    """Runs one inference by `run_async` and waits; raises RuntimeError with the text of an error."""
    waiting = Waiting()
    session.run_async(None, {session.get_inputs()[0].name: rows}, waiting, None)
    results, _, error = waiting.wait()
    if error:
        raise RuntimeError(error)
    return list(results)


def run_with_iobinding(session: Any, rows: np.ndarray) -> list[np.ndarray]:
    """Runs one inference by `run_with_iobinding`, every output bound to host memory."""
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, rows)
    for node in session.get_outputs():
        binding.bind_output(node.name)
    assert session.run_with_iobinding(binding) is None
    return [value.numpy() for value in binding.get_outputs()]


def run_with_ort_values(session: Any, rows: np.ndarray) -> list[np.ndarray]:
    """Runs one inference by `run_with_ort_values`."""
    value = ort.OrtValue.ortvalue_from_numpy(rows)
    return [output.numpy() for output in session.run_with_ort_values(None, {session.get_inputs()[0].name: value})]


def run_with_ortvaluevector(session: Any, rows: np.ndarray) -> list[np.ndarray]:
    """Runs one inference by `run_with_ortvaluevector`, every output fetched to host memory."""
    value = ort.OrtValue.ortvalue_from_numpy(rows)
    feeds, fetches = C.OrtValueVector(), C.OrtValueVector()
    feeds.push_back(value._ortvalue)
    names = [node.name for node in session.get_outputs()]
    device = ort.OrtDevice.make("cpu", 0)._get_c_device()
    session.run_with_ortvaluevector(
        ort.RunOptions(), [session.get_inputs()[0].name], feeds, names, fetches, [device] * len(names)
    )
    return [fetches[position].numpy() for position in range(len(fetches))]


RUNS: Final[dict[str, Run]] = {
    "run": run,
    "run_async": run_async,
    "run_with_iobinding": run_with_iobinding,
    "run_with_ort_values": run_with_ort_values,
    "run_with_ortvaluevector": run_with_ortvaluevector,
}
