"""What is copied of `OrtValue`s: in host memory, on a device, absent, large, strings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, Item, Plan, Tensor, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import MAX_TEXTS, SMALL_BYTES
from otel_mlmon.instrumentation.runtime.onnxruntime.ort_values import (
    DEVICE_INTERVAL_NS,
    MAX_DEVICE_BYTES,
    UNSYNCHRONIZED,
    CopyValues,
    DeviceSampler,
    is_device_synchronized,
    make_ort_value_call_copier,
    make_ort_value_copier,
    make_shape_placeholder,
)
from tests.support import models
from tests.support.calls import records_of, session

ROWS = Tensor(name="x", layout="rows", dtype="float32", row_shape=(2,))
SECOND = 10**9


class DeviceValue(ort.OrtValue):  # type: ignore[misc]
    """An `OrtValue` in host memory that says it lies on a device, and counts how often it is brought to the host."""

    fault: Exception | None = None
    reads = 0

    def device_name(self) -> str:
        return "cuda"

    def numpy(self) -> Any:
        type(self).reads += 1
        if self.fault is not None:
            raise self.fault
        return super().numpy()


class Value:
    """What an `OrtValue` of nothing, or of no tensor answers."""

    def __init__(self, *, has_value: bool = True, is_tensor: bool = True) -> None:
        self._has_value, self._is_tensor = has_value, is_tensor

    def has_value(self) -> bool:
        return self._has_value

    def is_tensor(self) -> bool:
        return self._is_tensor


def on_device(array: np.ndarray) -> Any:
    value = DeviceValue.ortvalue_from_numpy(array)
    assert isinstance(value, DeviceValue)
    return value


def on_host(array: np.ndarray) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(array)


def never(_: Any) -> Item:
    raise AssertionError("copied")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    DeviceValue.reads = 0
    yield
    guard("device_outputs").reset_stage()


class Recording:
    """The copier of one output without inputs, and what it queued."""

    def __init__(self, *, output: Tensor = ROWS, inputs: tuple[Tensor, ...] = (), **options: Any) -> None:
        self.queue = CallQueue(
            fields=FIELDS, max_records=1000, max_bytes=1 << 24, attend=lambda _: None, weigh=estimate_call_bytes
        )
        plan = Plan(session=session(), operation="run_with_iobinding", inputs=inputs, outputs=(output,))
        arguments: dict[str, Any] = {"is_host_only": False, "are_views": True, **options}
        self.copy_call: CopyValues = make_ort_value_call_copier(
            plan, [0], sink=self.queue, context=lambda _: None, **arguments
        )

    def outputs(self, value: Any, *, at_ns: int = 0, run_options: Any = None, feed: Any = None) -> Any:
        """The copies of the outputs of one call."""
        self.copy_call(feed or {}, [value], run_options, at_ns - 1, at_ns)
        (record,) = records_of(self.queue.take_calls(10))
        return record[5]


def unsynchronized() -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry(UNSYNCHRONIZED, "1")
    return options


def test_only_what_lies_in_host_memory_is_copied() -> None:
    copy = make_ort_value_copier(ROWS, never, are_views=True)
    assert copy(on_device(np.ones((5, 2), np.float32))) == ((5, 2), b"")
    assert [copy(None), copy(Value(has_value=False))] == [None, None]
    with pytest.raises(AssertionError, match="copied"):
        copy(on_host(np.ones((1, 2), np.float32)))


def test_a_shape_is_not_an_array() -> None:
    value = on_host(np.ones((4, 2), np.float32))
    shape = Tensor(name="x", layout="shape", dtype="float32")
    assert make_ort_value_copier(shape, never, are_views=True)(value) == ((4, 2), b"")


def test_strings_are_made_only_if_they_are_few() -> None:
    text_session = ort.InferenceSession(models.text_labels())

    def labels(count: int) -> Any:
        rows = on_host(np.tile(np.array([[0, 4, 0]], np.float32), (count, 1)))
        return text_session.run_with_ort_values(["label"], {"input": rows})[0]

    seen: list[list[str]] = []

    def copy(array: Any) -> Item:
        seen.append(array.tolist())
        return None

    by_value = make_ort_value_copier(Tensor(name="x", layout="text"), copy, are_views=True)
    assert by_value(labels(2)) is None
    assert by_value(labels(MAX_TEXTS + 1)) == ((MAX_TEXTS + 1,), ())
    assert seen == [["bee", "bee"]]


@pytest.mark.parametrize(("are_views", "is_read"), [(True, True), (False, False)])
def test_where_reading_copies_all_of_it_a_large_tensor_is_a_shape(are_views: bool, is_read: bool) -> None:
    rows = np.zeros((1 << 18, 2), np.float32)
    assert bool(Recording(are_views=are_views).outputs(on_host(rows))[0][1]) is is_read


def test_a_placeholder_has_the_shape_and_no_memory() -> None:
    placeholder = make_shape_placeholder(on_host(np.ones((300, 2), np.float32)))
    assert isinstance(placeholder, np.ndarray)
    assert (placeholder.shape, placeholder.strides) == ((300, 2), (0, 0))
    assert [
        make_shape_placeholder(None),
        make_shape_placeholder(Value(has_value=False)),
        make_shape_placeholder(Value(is_tensor=False)),
    ] == [None, None, None]


def test_the_short_way_and_the_long_way_copy_the_same() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    recording = Recording(inputs=(ROWS,))
    sides = []
    for _ in range(3):  # the first finds the queue empty, and goes the long way
        recording.copy_call({"x": on_host(rows)}, [on_host(rows)], None, 0, 1)
    for record in records_of(recording.queue.take_calls(10)):
        sides.append((record[4], record[5]))
    assert sides == [(rows.tobytes(), rows.tobytes())] * 3


def test_large_rows_are_not_copied_the_short_way() -> None:
    recording, large = Recording(), np.zeros((SMALL_BYTES, 2), np.float32)
    for _ in range(2):
        recording.copy_call({}, [on_host(large)], None, 0, 1)
    first, second = records_of(recording.queue.take_calls(10))
    assert first[5] == second[5] == large.tobytes()


def test_without_a_sampler_nothing_is_read_from_a_device() -> None:
    recording, value = Recording(), on_device(np.ones((3, 2), np.float32))
    assert [recording.outputs(value, at_ns=at_ns) for at_ns in (0, SECOND)] == [(((3, 2), b""),)] * 2
    assert DeviceValue.reads == 0


def test_at_most_ten_calls_a_second_are_read_from_a_device() -> None:
    recording, rows = Recording(sampler=DeviceSampler()), np.ones((3, 2), np.float32)
    outputs = [recording.outputs(on_device(rows), at_ns=at_ns) for at_ns in range(0, 2 * SECOND, SECOND // 1000)]
    assert DeviceValue.reads == 20
    assert set(outputs) == {rows.tobytes(), (((3, 2), b""),)}


def test_threads_share_the_ten_calls_a_second() -> None:
    sampler, chosen, lock = DeviceSampler(), [], threading.Lock()
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        mine = [at_ns for at_ns in range(0, SECOND, DEVICE_INTERVAL_NS // 50) if sampler.choose_call(None, at_ns)]
        with lock:
            chosen.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(chosen) <= 10


@pytest.mark.parametrize(("size", "reads"), [(MAX_DEVICE_BYTES, 1), (MAX_DEVICE_BYTES + 8, 0)])
def test_only_small_outputs_are_read_from_a_device(size: int, reads: int) -> None:
    rows = np.ones((size // 8, 2), np.float32)
    outputs = Recording(sampler=DeviceSampler()).outputs(on_device(rows))
    assert DeviceValue.reads == reads
    assert outputs == (rows.tobytes() if reads else ((rows.shape, b""),))


def test_a_call_that_leaves_the_device_at_work_is_never_read() -> None:
    recording, value = Recording(sampler=DeviceSampler()), on_device(np.ones((3, 2), np.float32))
    times = range(0, 10 * SECOND, SECOND)
    assert {recording.outputs(value, at_ns=at_ns, run_options=unsynchronized()) for at_ns in times} == {(None,)}
    assert DeviceValue.reads == 0
    in_step = recording.outputs(value, at_ns=20 * SECOND, run_options=ort.RunOptions())
    assert (in_step, DeviceValue.reads) == (np.ones((3, 2), np.float32).tobytes(), 1)


def test_host_memory_is_not_read_either_where_a_device_may_still_write_it() -> None:
    value = on_host(np.ones((3, 2), np.float32))
    assert Recording().outputs(value, run_options=unsynchronized()) == (None,)
    assert Recording(is_host_only=True).outputs(value, run_options=unsynchronized()) == np.ones((3, 2), "f4").tobytes()


def test_run_options_say_whether_a_call_waits() -> None:
    class Older:
        """Run options that cannot be asked."""

    other = ort.RunOptions()
    other.add_run_config_entry(UNSYNCHRONIZED, "0")
    assert [is_device_synchronized(options) for options in (ort.RunOptions(), other, unsynchronized(), Older())] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.guarded
def test_a_device_that_cannot_be_read_is_tried_once(caplog: pytest.LogCaptureFixture) -> None:
    recording, value = Recording(sampler=DeviceSampler()), on_device(np.ones((3, 2), np.float32))
    value.fault = RuntimeError("no copy from this device")
    outputs = [recording.outputs(value, at_ns=at_ns) for at_ns in range(0, 5 * SECOND, SECOND)]
    assert outputs == [(((3, 2), b""),)] * 5
    assert DeviceValue.reads == 1
    assert "device_outputs" in caplog.text
