from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, Item, SessionInfo, Tensor, weigh_call
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import MAX_TEXTS
from otel_mlmon.instrumentation.runtime.onnxruntime.ort_values import OrtValueRecorder, shape_placeholder, value_copier
from tests.support import models
from tests.support.calls import records_of

ROWS = Tensor(name="x", layout="rows", dtype="float32", row_shape=(2,))


class Value:
    """What an `OrtValue` on a device, of nothing, or of no tensor answers."""

    def __init__(self, *, device: str = "cuda", has_value: bool = True, is_tensor: bool = True) -> None:
        self._device, self._has_value, self._is_tensor = device, has_value, is_tensor

    def device_name(self) -> str:
        return self._device

    def has_value(self) -> bool:
        return self._has_value

    def is_tensor(self) -> bool:
        return self._is_tensor

    def shape(self) -> list[int]:
        return [5, 2]


def never(_: Any) -> Item:
    raise AssertionError("copy_calls")


def test_only_what_lies_in_host_memory_is_copied() -> None:
    copy = value_copier(ROWS, never)
    assert copy(Value()) == ((5, 2), b"")
    assert [copy(None), copy(Value(has_value=False))] == [None, None]
    with pytest.raises(AssertionError, match="copy_calls"):
        copy(ort.OrtValue.ortvalue_from_numpy(np.ones((1, 2), np.float32)))


def test_a_shape_is_not_an_array() -> None:
    value = ort.OrtValue.ortvalue_from_numpy(np.ones((4, 2), np.float32))
    assert value_copier(Tensor(name="x", layout="shape", dtype="float32"), never)(value) == ((4, 2), b"")


def test_strings_are_made_only_if_they_are_few() -> None:
    session = ort.InferenceSession(models.text_labels())

    def labels(count: int) -> Any:
        rows = ort.OrtValue.ortvalue_from_numpy(np.tile(np.array([[0, 4, 0]], np.float32), (count, 1)))
        return session.run_with_ort_values(["label"], {"input": rows})[0]

    seen: list[list[str]] = []

    def copy(array: Any) -> Item:
        seen.append(array.tolist())
        return None

    by_value = value_copier(Tensor(name="x", layout="text"), copy)
    assert by_value(labels(2)) is None
    assert by_value(labels(MAX_TEXTS + 1)) == ((MAX_TEXTS + 1,), ())
    assert seen == [["bee", "bee"]]


def test_a_stand_in_has_the_shape_and_no_memory() -> None:
    found = shape_placeholder(ort.OrtValue.ortvalue_from_numpy(np.ones((300, 2), np.float32)))
    assert isinstance(found, np.ndarray)
    assert (found.shape, found.strides) == ((300, 2), (0, 0))
    assert [
        shape_placeholder(None),
        shape_placeholder(Value(has_value=False)),
        shape_placeholder(Value(is_tensor=False)),
    ] == [None, None, None]


class Picture:
    """A node whose values are images."""

    name = "out"
    type = "tensor(float)"
    shape: Sequence[object] = ("N", 3, 8, 8)


def test_of_outputs_that_are_not_read_one_shape_tells_the_batch() -> None:
    info = SessionInfo(
        model_name="", path="", digest="", graph_name="", version=1, metadata={}, provider="P", runtime_version="1"
    )
    ring = CallQueue(fields=FIELDS, max_records=10, max_bytes=10_000, attend=lambda _: None, weigh=weigh_call)
    asked = {0: Picture(), 1: Picture()}
    tap = OrtValueRecorder(info, "run_with_iobinding", inputs=(), nodes=asked, sink=ring, are_values=True)
    value = ort.OrtValue.ortvalue_from_numpy(np.zeros((2, 3, 8, 8), np.float32))
    tap.record(1, 2, None, (), [value, value])
    (record,) = records_of(ring.take(10))
    assert [tensor.layout for tensor in record[0].outputs] == ["shape"]
    assert record[5] == (((2, 3, 8, 8), b""),)
