"""A runtime for the library `toy`: each call of `Model.predict` is recorded."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

from mlmon_extension import toy
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.runtime.call import DROP_FAULT, RECORD_BYTES, Plan, SessionInfo, Tensor
from otel_mlmon.instrumentation.runtime.runtime import Capture

INPUT = Tensor(name="odds", layout="rows", dtype="float64", row_shape=(3,))
OUTPUT = Tensor(name="probabilities", layout="rows", dtype="float64", row_shape=(3,))


class ToyInstrumentation:
    """Replaces `Model.predict` until it is undone."""

    methods = ("predict",)

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._original = toy.Model.predict
        self._plan = Plan(session=_describe(capture), operation="predict", inputs=(INPUT,), outputs=(OUTPUT,))
        self.renew_context()
        toy.Model.predict = self._replacement()  # type: ignore[method-assign]

    def sessions(self) -> list[SessionInfo]:
        """Lists the one model that the library has."""
        return [self._plan.session]

    def session_of(self, model: Any) -> SessionInfo | None:
        """Describes a model of the library."""
        return self._plan.session if isinstance(model, toy.Model) else None

    def renew_context(self) -> None:
        """Reads contexts by the function that is valid now."""
        self._context = self._capture.context_reader()

    def undo(self) -> bool:
        """Puts the method back."""
        toy.Model.predict = self._original  # type: ignore[method-assign]
        return True

    def _replacement(self) -> Any:
        @functools.wraps(self._original)
        def predict(model: toy.Model, rows: np.ndarray) -> np.ndarray:
            started_ns = time.perf_counter_ns()
            try:
                probabilities = self._original(model, rows)
            except BaseException as error:
                self._record(started_ns, None, None, type(error).__qualname__)
                raise
            self._record(started_ns, rows, probabilities, None)
            return probabilities

        return predict

    def _record(
        self, started_ns: int, rows: np.ndarray | None, outputs: np.ndarray | None, error_type: str | None
    ) -> None:
        ended_ns = time.perf_counter_ns()
        is_recorded = False
        with guard("toy"):  # no fault of ours reaches the application
            inputs = () if rows is None else rows.tobytes()
            copies = () if outputs is None else outputs.tobytes()
            call = (self._plan, started_ns, ended_ns, self._context(None), inputs, copies, error_type)
            self._capture.sink.offer(call, RECORD_BYTES + len(inputs) + len(copies))
            is_recorded = True
        if not is_recorded:
            self._capture.sink.drop(DROP_FAULT)


def _describe(capture: Capture) -> SessionInfo:
    return SessionInfo(
        model_name=capture.model_name(toy.Model) or "toy-model",
        path="",
        graph_name="",
        metadata={},
        provider="",
        runtime_version="1.0",
        runtime_name="toy",
    )


class ToyRuntime:
    """Instruments the library; a runtime whose library is not installed would return None."""

    def instrument(self, capture: Capture) -> ToyInstrumentation:
        """Replaces `Model.predict`."""
        return ToyInstrumentation(capture)


RUNTIME = ToyRuntime()
