"""Makes the functions that copy the inputs and outputs of a session's inference calls.

Copying a small array costs 0.04 µs; a large one is thinned. Whole rows are kept at a constant step, since a row is one
prediction and half of one is none; of an image a sample of its pixels, which keeps its mean and contrast.
"""

from __future__ import annotations

import functools
import itertools
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy import ndarray

from otel_mlmon.instrumentation.runtime.call import FIELDS, RECORD_BYTES, Context, Item, Plan, Shape, Side, Sink, Tensor
from otel_mlmon.instrumentation.runtime.input_sample import (
    compute_sample_interval,
    compute_sample_positions,
    count_sampled_pixels,
)

SMALL_BYTES: Final = 1024
"""The largest input and output that are copied by the specialised closure."""

MAX_INPUT_BYTES: Final = 4096
SAMPLE_BYTES: Final = 1024
"""Bytes of whole rows that are copied of a larger input, at a constant step."""

MAX_WIDE_ROWS: Final = 16
"""Rows of such an input that are copied of a call."""
MAX_WIDE_BYTES: Final = 1 << 16
"""Where such an input is no contiguous array, and larger, it is not copied."""

MAX_OUTPUT_BYTES: Final = 65_536
MAX_ITEM_BYTES: Final = 4096
"""Bytes of boxes, tokens or frames that are copied of an output of three axes, at a constant step."""

MAX_IMAGE_BYTES: Final = 65_536
MAX_WHOLE_BYTES: Final = 1 << 20
"""An output that is larger is not copied for the developer's own function."""
MAX_TEXTS: Final = 64
"""Strings copied of one tensor."""

MAX_TEXT_CHARACTERS: Final = 256
"""Characters copied of each string: a longer one is no category."""

TEXT_BYTES: Final = 60
"""Bytes of a string without its characters."""

Copy = Callable[[Any], Item]
"""Copies one input or output."""

CopyCall = Callable[[Mapping[str, Any], Sequence[Any], int, int], None]
"""Copies one call: feed, outputs, `started_ns`, `ended_ns`."""


def make_call_copier(plan: Plan, positions: Sequence[int], *, sink: Sink, context: Context) -> CopyCall:
    """Makes the function that copies the inference calls of a session, as its plan says."""
    general = _make_any_call_copier(plan, positions, sink, context)
    if len(plan.inputs) == len(plan.outputs) == 1 and is_small_output(plan.inputs[0], plan.outputs[0]):
        return _make_small_call_copier(plan, positions[0], sink, context, general)
    return general


def is_small_output(source: Tensor, result: Tensor) -> bool:
    """Returns whether an output is small whenever the input is, so that it may be copied without checking its size.

    Neither may be absent: what is looked up in a dictionary of the host's with defaults would be added to it.
    """
    if (
        source.is_optional
        or result.is_optional
        or not source.layout == result.layout == "rows"
        or source.row_shape is None
        or result.row_shape is None
    ):
        return False
    rows = SMALL_BYTES // max(compute_row_bytes(source), 1)
    return 0 < rows * compute_row_bytes(result) <= MAX_OUTPUT_BYTES


def compute_row_bytes(tensor: Tensor) -> int:
    """Computes how many bytes one row of a tensor takes."""
    return int(np.dtype(tensor.dtype).itemsize * np.prod(tensor.row_shape or (1,), dtype=np.int64))


def compute_queue_limit(sink: Sink) -> int:
    """Computes up to which length the call queue may be extended without counting bytes.

    Up to it, a closure may extend the queue without counting bytes.
    """
    return FIELDS * min(sink.high_water, sink.max_bytes // (2 * SMALL_BYTES + RECORD_BYTES))


def _make_small_call_copier(plan: Plan, position: int, sink: Sink, context: Context, general: CopyCall) -> CopyCall:
    """Makes a fast copying function for calls with one small table as input and one vector a row as output.

    onnxruntime holds an input against the shape that the model declares, an output not.
    """
    axes, row = len(plan.outputs[0].row_shape or ()) + 1, compute_row_bytes(plan.outputs[0])
    name, small = plan.inputs[0].name, SMALL_BYTES
    queue, extend = sink.queue, sink.queue.extend
    limit = compute_queue_limit(sink)

    def copy_call(feed: Mapping[str, Any], outputs: Sequence[Any], started_ns: int, ended_ns: int) -> None:
        array = feed[name]
        if type(array) is ndarray and array.nbytes <= small and 0 < len(queue) < limit:
            result = outputs[position]
            output = result.tobytes()
            if result.ndim == axes and len(output) == len(result) * row <= small:
                extend((plan, started_ns, ended_ns, context(None), array.tobytes(), output, None))
                return
        general(feed, outputs, started_ns, ended_ns)

    return copy_call


def _make_any_call_copier(plan: Plan, positions: Sequence[int], sink: Sink, context: Context) -> CopyCall:
    offer = sink.offer
    input_copiers = [(tensor.name, make_tensor_copier(tensor, is_input=True)) for tensor in plan.inputs]
    output_copiers = [
        (position, make_tensor_copier(tensor, is_input=False))
        for position, tensor in zip(positions, plan.outputs, strict=True)
    ]

    def copy_call(feed: Mapping[str, Any], outputs: Sequence[Any], started_ns: int, ended_ns: int) -> None:
        inputs = [copy(feed.get(name)) for name, copy in input_copiers]
        copies = [copy(outputs[position]) for position, copy in output_copiers]
        record = (plan, started_ns, ended_ns, context(None), join_call_copies(inputs), join_call_copies(copies), None)
        offer(record, estimate_copied_bytes((*inputs, *copies)))

    return copy_call


def make_tensor_copier(tensor: Tensor, *, is_input: bool) -> Copy:
    """Makes the function that copies one input or output of a session, as its plan says."""
    if tensor.layout == "rows":
        limits = (MAX_INPUT_BYTES, SAMPLE_BYTES) if is_input else (MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES)
        return _make_rows_copier(np.dtype(tensor.dtype), *limits, row_shape=tensor.row_shape)
    if tensor.layout in {"nchw", "nhwc"}:
        return functools.partial(_copy_pixels, dtype=np.dtype(tensor.dtype), channels_first=tensor.layout == "nchw")
    if tensor.layout == "items":
        return functools.partial(_copy_items, dtype=np.dtype(tensor.dtype))
    if tensor.layout == "wide":
        return functools.partial(_copy_wide_rows, dtype=np.dtype(tensor.dtype))
    return {"text": _copy_texts, "maps": _copy_label_maps, "shape": _copy_shape, "whole": _copy_whole_tensor}.get(
        tensor.layout, _copy_nothing
    )


def _make_rows_copier(dtype: np.dtype[Any], limit_bytes: int, sample_bytes: int, *, row_shape: Shape | None) -> Copy:
    def copy(value: Any) -> Item:
        # A type that differs is an array of Python objects, whose bytes would be pointers, or of foreign byte order.
        if isinstance(value, ndarray) and value.dtype == dtype and value.ndim:
            if value.nbytes <= limit_bytes:
                return value.tobytes() if value.shape[1:] == row_shape else (value.shape, value.tobytes())
            row_bytes = value.nbytes // len(value)
            if row_bytes > limit_bytes * 16:
                return (value.shape, b"")
            return (value.shape, value[:: -(-value.nbytes // max(sample_bytes, row_bytes))].tobytes())
        if type(value) is list:
            head = np.asarray(value[:MAX_TEXTS], dtype=dtype)
            return ((len(value), *head.shape[1:]), head.tobytes()) if head.ndim else None
        return None

    return copy


def _copy_items(value: Any, *, dtype: np.dtype[Any]) -> Item:
    """Copies a sample of the boxes, tokens or frames in an output of three axes, at a constant step."""
    if not isinstance(value, ndarray) or value.ndim != 3 or value.dtype != dtype:
        return None
    row_bytes = value.shape[2] * value.itemsize
    if not value.nbytes or row_bytes > MAX_INPUT_BYTES * 16 or not value.flags.c_contiguous:
        return (value.shape, b"")
    rows = value.reshape(-1, value.shape[2])
    return (value.shape, rows[:: -(-value.nbytes // max(MAX_ITEM_BYTES, row_bytes))].tobytes())


def _copy_pixels(value: Any, *, dtype: np.dtype[Any], channels_first: bool) -> Item:
    if not isinstance(value, ndarray) or value.ndim != 4 or value.dtype != dtype:
        return None
    images = value[:: _compute_image_interval(value, channels_first=channels_first)]
    height, width = value.shape[2:] if channels_first else value.shape[1:3]
    positions = compute_sample_positions(height, width)
    if positions is None:
        return (value.shape, images.tobytes())
    if not images.flags.c_contiguous:
        rows, columns = np.divmod(positions, width)
        sample = images[:, :, rows, columns] if channels_first else images[:, rows, columns]
    elif channels_first:
        # `wrap` saves a pass over the positions, which are all within the image.
        sample = images.reshape(*images.shape[:2], height * width).take(positions, axis=2, mode="wrap")
    else:
        sample = images.reshape(len(images), height * width, value.shape[3]).take(positions, axis=1, mode="wrap")
    return (value.shape, sample.tobytes())


def _compute_image_interval(value: ndarray[Any, Any], *, channels_first: bool) -> int:
    """Computes how many images of a batch one copied image stands for."""
    height, width = value.shape[2:] if channels_first else value.shape[1:3]
    channels = value.shape[1] if channels_first else value.shape[3]
    return max(
        1, -(-int(len(value) * channels * count_sampled_pixels(height, width) * value.itemsize) // MAX_IMAGE_BYTES)
    )


def _copy_wide_rows(value: Any, *, dtype: np.dtype[Any]) -> Item:
    """Copies a sample of the values in a wide input, at a constant step within some of its rows."""
    if not isinstance(value, ndarray) or value.dtype != dtype or not value.ndim:
        return None
    if not value.size or not (value.flags.c_contiguous or value.nbytes <= MAX_WIDE_BYTES):
        return (value.shape, b"")
    rows = value.reshape(len(value), -1)
    return (value.shape, rows[:: -(-len(rows) // MAX_WIDE_ROWS), :: compute_sample_interval(rows.shape[1])].tobytes())


def _copy_texts(value: Any) -> Item:
    if not isinstance(value, (ndarray, list)):
        return None
    table = value if isinstance(value, ndarray) else np.asarray(value, dtype=object)
    if not table.ndim:
        return None
    sample = table if table.size <= MAX_TEXTS else table[:: -(-table.size // MAX_TEXTS)]
    texts = (sample if sample.ndim == 1 else sample.ravel()[: MAX_TEXTS * 4]).tolist()
    return (table.shape, tuple([str(text)[:MAX_TEXT_CHARACTERS] for text in texts]))


def _copy_label_maps(value: Any) -> Item:
    if type(value) is not list or not value:
        return None
    rows, columns = len(value), len(value[0])
    sample = value if rows * columns * 4 <= MAX_OUTPUT_BYTES else value[:: -(-rows * columns * 4 // MAX_OUTPUT_BYTES)]
    # A fifth of the time that numpy takes for an array of tuples.
    data = array("f", itertools.chain.from_iterable(map(dict.values, sample))).tobytes()
    return ((rows, columns), data if len(data) == 4 * columns * len(sample) else b"")


def _copy_whole_tensor(value: Any) -> Item:
    if not isinstance(value, ndarray) or value.dtype == object:
        return None
    return (value.shape, value.tobytes() if value.nbytes <= MAX_WHOLE_BYTES else b"")


def _copy_shape(value: Any) -> Item:
    return (value.shape, b"") if isinstance(value, ndarray) else None


def _copy_nothing(value: Any) -> Item:  # noqa: ARG001
    return None


def join_call_copies(items: Sequence[Item]) -> Side:
    """Joins the copied inputs, or outputs, of one call in the form in which they are queued."""
    if len(items) == 1 and type(items[0]) is bytes:
        return items[0]
    return tuple(items)


def estimate_copied_bytes(items: Sequence[Item]) -> int:
    """Estimates how many bytes of memory an inference call with these copies takes in the queue."""
    weight = RECORD_BYTES
    for item in items:
        if isinstance(item, bytes):
            weight += len(item)
        elif item is not None:
            data = item[1]
            data_bytes = TEXT_BYTES * len(data) + sum(map(len, data)) if isinstance(data, tuple) else len(data)
            weight += 100 + data_bytes
    return weight
