"""Records the calls that do not come through `run`.

Those methods take and return other objects than arrays: `OrtValue`s, perhaps in a device's memory, or nothing at all.
Arrays in host memory are copied as those of `run` are; of what lies on a device only the shape is read, since bringing
it to the host would wait for the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np

from otel_mlmon.instrumentation.runtime.call import RECORD_BYTES, Item, Plan, SessionInfo, Sink, Tensor
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    MAX_TEXTS,
    Copy,
    Node,
    copier_of,
    plan_output,
    plan_outputs,
    side_of,
    weight_of,
)

Outputs: TypeAlias = "tuple[Plan, list[tuple[int, Copy]]]"

HOST_DEVICE: Final = "cpu"


class OrtValueRecorder:
    """Records the calls of one session by one method and one choice of outputs.

    Holds the session's description, never the session. Runs on: the host's threads, any number at once.

    Args:
        session: Its description.
        operation: A value of `ml.operation.name`.
        inputs: What is copied of the feed.
        nodes: The outputs by their position among the host's.
        sink: Where records go.
        are_values: Whether inputs and outputs are `OrtValue`s.
        is_whole: Whether outputs are copied as they are, for the developer's own function.
        output_names: The names of all outputs of the model.
    """

    def __init__(
        self,
        session: SessionInfo,
        operation: str,
        *,
        inputs: tuple[Tensor, ...],
        nodes: Mapping[int, Node],
        sink: Sink,
        are_values: bool,
        is_whole: bool = False,
        output_names: tuple[str, ...] = (),
    ) -> None:
        self._session = session
        self._operation = operation
        self._inputs = inputs
        self._nodes = nodes
        self._sink = sink
        self._are_values = are_values
        self._is_whole = is_whole
        self._output_names = output_names
        self._input_copiers = [(tensor.name, self._copier(tensor, is_input=True)) for tensor in inputs]
        self._outputs: Outputs | None = None
        self._failure_plan: Plan | None = None

    def copy_inputs(self, feed: Mapping[str, Any]) -> Sequence[Item]:
        """Copies the inputs."""
        return [copy(feed.get(name)) for name, copy in self._input_copiers]

    def record(
        self, started_ns: int, ended_ns: int, context: object, inputs: Sequence[Item], outputs: Sequence[Any]
    ) -> None:
        """Records a call that succeeded; the outputs of the first one decide what is copied of all."""
        plan, copiers = self._outputs or self._plan(outputs)
        copies = [copy(outputs[position]) for position, copy in copiers]
        record = (plan, started_ns, ended_ns, context, side_of(inputs), side_of(copies), None)
        self._sink.offer(record, weight_of((*inputs, *copies)))

    def record_failure(self, started_ns: int, ended_ns: int, context: object, error_type: str) -> None:
        """Records a call that failed."""
        if self._failure_plan is None:
            self._failure_plan = Plan(session=self._session, operation=self._operation)
        self._sink.offer((self._failure_plan, started_ns, ended_ns, context, (), (), error_type), RECORD_BYTES)

    def _plan(self, outputs: Sequence[Any]) -> Outputs:
        values = {
            position: (node, shape_placeholder(outputs[position]) if self._are_values else outputs[position])
            for position, node in self._nodes.items()
            if position < len(outputs)
        }
        chosen = plan_outputs(values, is_whole=self._is_whole)
        if not chosen and not self._inputs:
            # One shape still shows the batch size.
            planned = {position: plan_output(node, value) for position, (node, value) in values.items()}
            chosen = dict([(position, tensor) for position, tensor in planned.items() if tensor.layout == "shape"][:1])
        plan = Plan(
            session=self._session,
            operation=self._operation,
            inputs=self._inputs,
            outputs=tuple(chosen.values()),
            output_names=self._output_names,
        )
        # Two threads may both come here first; each records by its own plan, and one of them stays.
        outputs_planned = (
            plan,
            [(position, self._copier(tensor, is_input=False)) for position, tensor in chosen.items()],
        )
        self._outputs = outputs_planned
        return outputs_planned

    def _copier(self, tensor: Tensor, *, is_input: bool) -> Copy:
        copy = copier_of(tensor, is_input=is_input)
        return value_copier(tensor, copy) if self._are_values else copy


def value_copier(tensor: Tensor, copy: Copy) -> Copy:
    """Makes a function that copies an `OrtValue`: by `copy` if it lies in host memory, else its shape."""
    is_shape, is_text = tensor.layout == "shape", tensor.layout == "text"

    def copy_value(value: Any) -> Item:
        # Each question costs 0.3 µs. What the plan reads is a tensor by its declared type, but may be an absent one.
        if value is None or not value.has_value():
            return None
        if is_shape or value.device_name().lower() != HOST_DEVICE:
            return tuple(value.shape()), b""
        if is_text and prod(value.shape()) > MAX_TEXTS:
            return tuple(value.shape()), ()  # strings have no view: every one of them would be made
        return copy(value.numpy())

    return copy_value


def shape_placeholder(value: Any) -> object:
    """Makes an array of the shape of an `OrtValue` that takes no memory; None if it is no tensor."""
    if value is None or not value.has_value() or not value.is_tensor():
        return None
    return np.broadcast_to(np.float32(0), tuple(value.shape()))
