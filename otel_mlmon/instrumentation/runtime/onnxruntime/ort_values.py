"""Makes the functions that copy inference calls with `OrtValue`s, by other methods than `run`.

Those methods take and return other objects than arrays: `OrtValue`s, perhaps in a device's memory, or nothing at all.
What lies in host memory is copied as for `run`; of what lies on a device only the shape is read, since bringing it to
the host waits for the device, unless the developer asked for a sample of small outputs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np

from otel_mlmon.guard import Guard, guard
from otel_mlmon.instrumentation.runtime.call import Context, Item, Plan, Sink, Tensor
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    MAX_TEXTS,
    MAX_WHOLE_BYTES,
    SMALL_BYTES,
    Copy,
    compute_queue_limit,
    compute_row_bytes,
    estimate_copied_bytes,
    is_small_output,
    join_call_copies,
    make_tensor_copier,
)

CopyValues: TypeAlias = "Callable[[Mapping[str, Any], Any, Any, int, int], None]"
"""Copies one call: feed, outputs, run options, `started_ns`, `ended_ns`."""

HOST_NAMES: Final = frozenset({"cpu", "Cpu", "CPU"})
"""Names of host memory, as an `OrtValue` and the value below it spell them."""

MAX_DEVICE_BYTES: Final = 65_536
"""The largest output that is copied from a device."""

DEVICE_INTERVAL_NS: Final = 100_000_000
"""Time between two calls of a session whose outputs are copied from a device."""

UNSYNCHRONIZED: Final = "disable_synchronize_execution_providers"
"""The entry of run options that leaves the device at work when a call returns. Source: onnxruntime,
include/onnxruntime/core/session/onnxruntime_run_options_config_keys.h."""


class DeviceSampler:
    """Chooses the calls whose outputs are copied from a GPU: at most ten a second, small ones only.

    Copying waits for the device, so no call is chosen whose run options left it at work. Where a copy fails, such as in
    a build of onnxruntime that cannot read the device, no other one is tried.

    Runs on: the host's threads, any number at once; none of them waits.
    """

    __slots__ = ("_lock", "_next_ns", "_stage")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_ns = 0.0
        self._stage: Guard = guard("device_outputs")

    def choose_call(self, run_options: Any, ended_ns: int) -> bool:
        """Returns whether the outputs of a call that has just ended may be copied from the GPU."""
        if ended_ns < self._next_ns or not self._lock.acquire(blocking=False):
            return False
        try:
            if ended_ns < self._next_ns or self._stage.is_open:
                return False
            self._next_ns = ended_ns + DEVICE_INTERVAL_NS
        finally:
            self._lock.release()
        return run_options is None or is_device_synchronized(run_options)

    def copy_from_device(self, value: Any, copy: Copy, item_bytes: int) -> Item:
        """Copies an output from the GPU, or its shape only if it is large, or cannot be copied."""
        shape = tuple(value.shape())
        with self._stage:
            if prod(shape) * item_bytes <= MAX_DEVICE_BYTES:
                try:
                    array = value.numpy()
                except Exception:
                    self._next_ns = float("inf")
                    raise
                return copy(array)
        return shape, b""


def is_device_synchronized(run_options: Any) -> bool:
    """Returns whether an inference call with given run options waits until the GPU has finished."""
    read = getattr(run_options, "get_run_config_entry", None)
    if read is None:
        return False
    try:
        entry: str = read(UNSYNCHRONIZED)
    except RuntimeError:  # it has no such entry
        return True
    return entry != "1"


def make_ort_value_call_copier(
    plan: Plan,
    positions: Sequence[int],
    *,
    sink: Sink,
    context: Context,
    is_host_only: bool,
    are_views: bool,
    sampler: DeviceSampler | None = None,
) -> CopyValues:
    """Makes the function that copies a session's calls whose inputs and outputs are `OrtValue`s.

    Args:
        plan: Describes what is copied.
        positions: The planned outputs among the host's.
        sink: Where calls go.
        context: Reads the OpenTelemetry context.
        is_host_only: Whether the session runs on the CPU alone, so that run options leave no device at work.
        are_views: Whether the array of an `OrtValue` is a view of its memory, not a copy of all of it.
        sampler: Chooses calls whose outputs are copied from a device; None for none.
    """
    general = _make_any_call_copier(
        plan, positions, sink, context, is_host_only=is_host_only, are_views=are_views, sampler=sampler
    )
    if are_views and len(plan.outputs) == 1 and plan.outputs[0].layout == "rows":
        if not plan.inputs and is_small_output(plan.outputs[0], plan.outputs[0]):
            return _make_small_output_copier(plan, positions[0], sink, context, general, is_host_only=is_host_only)
        if len(plan.inputs) == 1 and is_small_output(plan.inputs[0], plan.outputs[0]):
            return _make_small_call_copier(plan, positions[0], sink, context, general, is_host_only=is_host_only)
    return general


def _make_small_call_copier(
    plan: Plan, position: int, sink: Sink, context: Context, general: CopyValues, *, is_host_only: bool
) -> CopyValues:
    """Makes a fast copying function for calls with one small `OrtValue` as input and one as output."""
    name, small, queue, extend = plan.inputs[0].name, SMALL_BYTES, sink.queue, sink.queue.extend
    limit, host = compute_queue_limit(sink), HOST_NAMES
    axes, row = len(plan.outputs[0].row_shape or ()) + 1, compute_row_bytes(plan.outputs[0])
    # onnxruntime allocates the results of a session without any device in host memory.
    are_host = is_host_only and plan.operation == "run_with_ort_values"

    def copy_call(feed: Mapping[str, Any], values: Any, run_options: Any, started_ns: int, ended_ns: int) -> None:
        source, result = feed[name], values[position]
        if (
            0 < len(queue) < limit
            and (is_host_only or run_options is None)
            and source.device_name() in host
            and (are_host or result.device_name() in host)
        ):
            data = source.numpy()
            if data.nbytes <= small:
                rows = result.numpy()
                output = rows.tobytes()
                if len(output) <= small and rows.ndim == axes and len(output) == len(rows) * row:
                    extend((plan, started_ns, ended_ns, context(None), data.tobytes(), output, None))
                    return
        general(feed, values, run_options, started_ns, ended_ns)

    return copy_call


def _make_small_output_copier(
    plan: Plan, position: int, sink: Sink, context: Context, general: CopyValues, *, is_host_only: bool
) -> CopyValues:
    """Makes a fast copying function for calls of which one small output is read, and no input."""
    small, queue, extend, limit, host = (
        SMALL_BYTES,
        sink.queue,
        sink.queue.extend,
        compute_queue_limit(sink),
        HOST_NAMES,
    )
    axes, row = len(plan.outputs[0].row_shape or ()) + 1, compute_row_bytes(plan.outputs[0])

    def copy_call(feed: Mapping[str, Any], values: Any, run_options: Any, started_ns: int, ended_ns: int) -> None:
        if 0 < len(queue) < limit and (is_host_only or run_options is None):
            result = values[position]
            if result.device_name() in host:
                data = result.numpy()
                if data.nbytes <= small and data.ndim == axes and data.nbytes == len(data) * row:
                    extend((plan, started_ns, ended_ns, context(None), (), data.tobytes(), None))
                    return
        general(feed, values, run_options, started_ns, ended_ns)

    return copy_call


def _make_any_call_copier(
    plan: Plan,
    positions: Sequence[int],
    sink: Sink,
    context: Context,
    *,
    is_host_only: bool,
    are_views: bool,
    sampler: DeviceSampler | None,
) -> CopyValues:
    offer = sink.offer
    input_copiers = [
        (tensor.name, make_ort_value_copier(tensor, make_tensor_copier(tensor, is_input=True), are_views=are_views))
        for tensor in plan.inputs
    ]
    outputs = [(tensor, make_tensor_copier(tensor, is_input=False)) for tensor in plan.outputs]
    plain = [
        (position, make_ort_value_copier(tensor, copy, are_views=are_views))
        for position, (tensor, copy) in zip(positions, outputs, strict=True)
    ]
    sampled = (
        plain
        if sampler is None
        else [
            (position, make_ort_value_copier(tensor, copy, are_views=are_views, sampler=sampler))
            for position, (tensor, copy) in zip(positions, outputs, strict=True)
        ]
    )

    def copy_call(feed: Mapping[str, Any], values: Any, run_options: Any, started_ns: int, ended_ns: int) -> None:
        inputs = [copy(feed.get(name)) for name, copy in input_copiers]
        if sampler is not None and sampler.choose_call(run_options, ended_ns):
            copies = [copy(values[position]) for position, copy in sampled]
        elif is_host_only or run_options is None:
            copies = [copy(values[position]) for position, copy in plain]
        else:  # a run option can leave the device still at work on them
            copies = [None] * len(plain)
        record = (plan, started_ns, ended_ns, context(None), join_call_copies(inputs), join_call_copies(copies), None)
        offer(record, estimate_copied_bytes((*inputs, *copies)))

    return copy_call


def make_ort_value_copier(tensor: Tensor, copy: Copy, *, are_views: bool, sampler: DeviceSampler | None = None) -> Copy:
    """Makes the function that copies an `OrtValue` in host memory, or the shape of one on a GPU."""
    is_shape, is_text = tensor.layout == "shape", tensor.layout == "text"
    item_bytes = np.dtype(tensor.dtype).itemsize if tensor.dtype else 0

    def copy_value(value: Any) -> Item:
        # What the plan reads is a tensor by its declared type, but may be an absent one.
        if value is None or not value.has_value():
            return None
        if is_shape:
            return tuple(value.shape()), b""
        if value.device_name() not in HOST_NAMES:
            return (
                (tuple(value.shape()), b"")
                if sampler is None or is_text
                else sampler.copy_from_device(value, copy, item_bytes)
            )
        if is_text or not are_views:
            # Strings have no view: every one of them would be made.
            shape = tuple(value.shape())
            if is_text and prod(shape) > MAX_TEXTS:
                return shape, ()
            if not is_text and prod(shape) * item_bytes > MAX_WHOLE_BYTES:
                return shape, b""
        return copy(value.numpy())

    return copy_value


def make_shape_placeholder(value: Any) -> object:
    """Returns an array with the shape of an `OrtValue` that takes no memory; None if it is no tensor."""
    if value is None or not value.has_value() or not value.is_tensor():
        return None
    return np.broadcast_to(np.float32(0), tuple(value.shape()))
