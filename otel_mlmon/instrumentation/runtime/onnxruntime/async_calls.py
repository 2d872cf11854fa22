"""Copies the inference calls of `run_async`, which end in a callback on a thread of onnxruntime's.

Inputs and context are copied at the start: when the call ends, the host may have filled its buffers anew, and the other
thread has no context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from numpy import ndarray

from otel_mlmon.instrumentation.runtime.call import RECORD_BYTES, Context, Plan, Side, Sink, Tensor
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    SMALL_BYTES,
    compute_queue_limit,
    compute_row_bytes,
    estimate_copied_bytes,
    is_small_output,
    join_call_copies,
    make_tensor_copier,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.plans import SessionNode

ASYNC_ERROR: Final = "RuntimeError"
"""The `error.type` of a call that fails on onnxruntime's own thread, which passes its callback a text and no class."""

PlanResults: TypeAlias = "Callable[[Mapping[int, tuple[SessionNode, Any]]], Mapping[int, Tensor]]"
"""Plans outputs by their position, from the description and first value of each."""

RecordCall: TypeAlias = "Callable[..., None]"


class AsyncCopier:
    """Copies the inference calls of one session that are made by `run_async`.

    Runs on: `copy_inputs` on the host's threads, the others on onnxruntime's, any number at once.

    Args:
        plan: Describes what is copied of the inputs.
        nodes: The outputs by their position among the host's.
        plan_results: Plans the outputs from the first result.
        sink: Where calls go.
        context: Reads the OpenTelemetry context of the host's thread.
    """

    __slots__ = ("_failure_plan", "_nodes", "_plan", "_plan_results", "_sink", "context", "copy_inputs", "record")

    def __init__(
        self,
        plan: Plan,
        nodes: Mapping[int, SessionNode],
        plan_results: PlanResults,
        *,
        sink: Sink,
        context: Context,
    ) -> None:
        self.context = context
        self.copy_inputs = _make_inputs_copier(plan.inputs)
        self.record: RecordCall = self._record_first_call
        """Records a call: its times, its context, the copies of its inputs, the arguments of its callback."""
        self._plan = plan
        self._nodes = nodes
        self._plan_results = plan_results
        self._sink = sink
        self._failure_plan: Plan | None = None

    def _record_first_call(
        self,
        started_ns: int,
        ended_ns: int,
        context: object,
        inputs: Side,
        results: Sequence[Any],
        _user_data: object = None,
        error: str = "",
    ) -> None:
        """Records the first call of `run_async`, whose results decide what is copied of all calls."""
        if error:
            self._record_failure(started_ns, ended_ns, context)
            return
        planned = self._plan_results(
            {position: (node, results[position]) for position, node in self._nodes.items() if position < len(results)}
        )
        plan = dataclasses.replace(self._plan, outputs=tuple(planned.values()))
        # Two threads may both come here first; each records by its own plan, and one of them stays.
        record = self._make_any_call_recorder(plan, list(planned))
        record(started_ns, ended_ns, context, inputs, results, None, "")
        if len(plan.inputs) == len(plan.outputs) == 1 and is_small_output(plan.inputs[0], plan.outputs[0]):
            record = _make_small_call_recorder(plan, next(iter(planned)), self._sink, record)
        self.record = record

    def _record_failure(self, started_ns: int, ended_ns: int, context: object) -> None:
        if self._failure_plan is None:
            self._failure_plan = dataclasses.replace(self._plan, inputs=())
        self._sink.offer((self._failure_plan, started_ns, ended_ns, context, (), (), ASYNC_ERROR), RECORD_BYTES)

    def _make_any_call_recorder(self, plan: Plan, positions: Sequence[int]) -> RecordCall:
        offer, record_failure = self._sink.offer, self._record_failure
        copiers = [
            (position, make_tensor_copier(tensor, is_input=False))
            for position, tensor in zip(positions, plan.outputs, strict=True)
        ]

        def record(
            started_ns: int,
            ended_ns: int,
            context: object,
            inputs: Side,
            results: Sequence[Any],
            _user_data: object = None,
            error: str = "",
        ) -> None:
            if error:
                record_failure(started_ns, ended_ns, context)
                return
            copies = [copy(results[position]) for position, copy in copiers]
            weight = estimate_copied_bytes((*((inputs,) if isinstance(inputs, bytes) else inputs), *copies))
            offer((plan, started_ns, ended_ns, context, inputs, join_call_copies(copies), None), weight)

        return record


def _make_small_call_recorder(plan: Plan, position: int, sink: Sink, general: RecordCall) -> RecordCall:
    """Makes the function that records calls of `run_async` with one small input and output, quickly."""
    queue, extend, limit, small = sink.queue, sink.queue.extend, compute_queue_limit(sink), SMALL_BYTES
    axes, row = len(plan.outputs[0].row_shape or ()) + 1, compute_row_bytes(plan.outputs[0])

    def record(
        started_ns: int,
        ended_ns: int,
        context: object,
        inputs: Side,
        results: Sequence[Any],
        user_data: object = None,
        error: str = "",
    ) -> None:
        if type(inputs) is bytes and not error and 0 < len(queue) < limit:
            result = results[position]
            output = result.tobytes()
            if len(output) <= small and result.ndim == axes and len(output) == len(result) * row:
                extend((plan, started_ns, ended_ns, context, inputs, output, None))
                return
        general(started_ns, ended_ns, context, inputs, results, user_data, error)

    return record


def _make_inputs_copier(tensors: Sequence[Tensor]) -> Callable[[Mapping[str, Any]], Side]:
    copiers = [(tensor.name, make_tensor_copier(tensor, is_input=True)) for tensor in tensors]

    def copy_inputs(feed: Mapping[str, Any]) -> Side:
        return join_call_copies([copy(feed.get(name)) for name, copy in copiers])

    if len(tensors) != 1 or tensors[0].layout != "rows" or tensors[0].row_shape is None:
        return copy_inputs
    name = tensors[0].name

    def copy_small_input(feed: Mapping[str, Any]) -> Side:
        array = feed.get(name)
        # Of another type onnxruntime takes none, and then nothing of this is recorded.
        return array.tobytes() if type(array) is ndarray and array.nbytes <= SMALL_BYTES else copy_inputs(feed)

    return copy_small_input
