from __future__ import annotations

import gc
import inspect
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, Call, Load, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.onnxruntime import patches as onnxruntime
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import MAX_PLANS, CallRecorder
from otel_mlmon.instrumentation.runtime.onnxruntime.ort_values import DEVICE_INTERVAL_NS
from otel_mlmon.instrumentation.runtime.onnxruntime.run_methods import read_parameter_names
from otel_mlmon.instrumentation.runtime.runtime import Capture
from tests.support import models
from tests.support.calls import copies, records_of
from tests.support.runs import RUNS, Waiting, run_with_iobinding

SESSION = ort.capi.onnxruntime_inference_collection.Session
METHODS = [*RUNS, "set_providers"]


def thread_of(_: None) -> int:
    return threading.get_ident()


class Watched:
    def __init__(self, *, samples_device_outputs: bool = False) -> None:
        self.ring = CallQueue(
            fields=FIELDS, max_records=100_000, max_bytes=10**9, attend=lambda _: None, weigh=estimate_call_bytes
        )
        self.loads: deque[Load] = deque()
        self.recorder = CallRecorder(
            Capture(
                sink=self.ring,
                loads=self.loads,
                context_reader=lambda: thread_of,
                model_name=lambda _: "",
                has_output_function=lambda _: False,
                samples_device_outputs=lambda _: samples_device_outputs,
            ),
            runtime_version="1",
            are_views=True,
        )
        self.patches = onnxruntime.patch_run_methods(ort, self.recorder)

    def calls(self) -> list[Call]:
        return list(map(Call._make, records_of(self.ring.take_calls(100_000))))

    def close(self) -> None:
        for patch in self.patches.values():
            patch.restore_method()
        self.recorder.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    before = {name: ort.InferenceSession.__dict__.get(name, SESSION.__dict__.get(name)) for name in METHODS}
    found = Watched()
    yield found
    found.close()
    assert before == {name: ort.InferenceSession.__dict__.get(name, SESSION.__dict__.get(name)) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_signature_and_documentation_stay(name: str) -> None:
    bare = getattr(ort.InferenceSession, name)
    found = Watched()
    ours = getattr(ort.InferenceSession, name)
    found.close()
    assert ours is not bare
    assert inspect.signature(ours) == inspect.signature(bare)
    assert (ours.__doc__, ours.__name__, ours.__qualname__, ours.__module__) == (
        bare.__doc__, bare.__name__, bare.__qualname__, bare.__module__,
    )  # fmt: skip


@pytest.mark.parametrize("path", RUNS)
def test_every_path_is_recorded_once_with_what_it_made(watched: Watched, path: str) -> None:
    session = ort.InferenceSession(models.classifier())
    rows = np.arange(20, dtype=np.float32).reshape(2, 10)
    made = RUNS[path](session, rows)[0]
    (call,) = watched.calls()
    has_inputs = path in {"run", "run_async", "run_with_ort_values"}
    assert call.plan.operation == path
    assert call.outputs == made.tobytes()
    assert call.inputs == (rows.tobytes() if has_inputs else ())
    assert (call.error_type, call.context) == (None, threading.get_ident())
    assert call.ended_ns > call.started_ns


@pytest.mark.parametrize("path", RUNS)
def test_every_path_records_a_failure_by_its_class(watched: Watched, path: str) -> None:
    session = ort.InferenceSession(models.classifier())
    with pytest.raises(Exception, match=r"invalid dimensions|Got: 3") as caught:
        RUNS[path](session, np.ones((1, 3), np.float32))
    (call,) = watched.calls()
    assert (call.plan.operation, call.inputs, call.outputs) == (path, (), ())
    assert call.error_type == ("RuntimeError" if path == "run_async" else type(caught.value).__qualname__)
    assert watched.ring.read_drop_counts() == {}


@pytest.mark.parametrize("path", RUNS)
def test_failed_calls_share_one_plan(watched: Watched, path: str) -> None:
    session = ort.InferenceSession(models.classifier())
    for _ in range(3):
        with pytest.raises(Exception, match=r"invalid dimensions|Got: 3"):
            RUNS[path](session, np.ones((1, 3), np.float32))
    assert len({id(call.plan) for call in watched.calls()}) == 1


def test_a_callback_gets_the_very_objects_and_the_context_is_the_callers(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    rows, mark, waiting = np.ones((1, 10), np.float32), object(), Waiting()
    assert session.run_async(["logits"], {"input": rows}, waiting, mark) is None
    results, given, error = waiting.wait()
    assert (given is mark, error, waiting.thread != threading.get_ident()) == (True, "", True)
    (call,) = watched.calls()
    assert call.outputs == results[0].tobytes()
    assert call.context == threading.get_ident()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A `run_async` below ours that only keeps the callbacks, to be called by the test."""
    held: list[Any] = []

    def run_async(self, output_names, input_feed, callback, user_data, run_options=None):  # type: ignore[no-untyped-def]
        held.append(callback)

    monkeypatch.setattr(SESSION, "run_async", run_async)
    return held


def test_inputs_of_an_asynchronous_call_are_those_of_its_start(later: list[Any]) -> None:
    found = Watched()
    session = ort.InferenceSession(models.classifier())
    rows, result, seen = np.ones((1, 10), np.float32), np.zeros((1, 4), np.float32), []

    def callback(*arguments: Any) -> None:
        seen.append(arguments)
        arguments[0][0][:] = 7

    session.run_async(None, {"input": rows}, callback, "mine")
    expected = rows.tobytes(), result.tobytes()
    rows[:] = 9
    results = [result]
    assert later[0](results, "mine", "") is None
    assert seen[0][0] is results
    assert result.tolist() == [[7.0] * 4]
    (call,) = found.calls()
    assert (call.inputs, call.outputs) == expected
    found.close()


def test_a_call_that_ends_after_the_instrumentation_only_reaches_its_callback(later: list[Any]) -> None:
    found = Watched()
    session = ort.InferenceSession(models.classifier())
    seen: list[Any] = []
    session.run_async(None, {"input": np.ones((1, 10), np.float32)}, lambda *given: seen.append(given), None)
    found.close()
    later[0]([], None, "no")
    assert seen == [([], None, "no")]
    assert found.calls() == []


def test_a_call_without_a_callback_is_a_counted_drop(later: list[Any]) -> None:
    found = Watched()
    session = ort.InferenceSession(models.classifier())
    session.run_async(None, {"input": np.ones((1, 10), np.float32)}, None, None)
    assert later == [None]
    assert found.ring.read_drop_counts() == {"no_callback": 1}
    found.close()


@pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 32),
    reason="a callback that raises can crash the process by itself, seen with onnxruntime 1.23.2",
)
def test_the_exception_of_a_callback_goes_where_it_went(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ort.InferenceSession(models.classifier())
    error, seen, has_come = KeyError("mine"), [], threading.Event()

    def hook(unraisable: Any) -> None:
        seen.append((unraisable.exc_value, unraisable.object))
        has_come.set()

    def callback(*_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "unraisablehook", hook)
    session.run_async(None, {"input": np.ones((1, 10), np.float32)}, callback, None)
    assert has_come.wait(10)
    watched.close()
    has_come.clear()
    session.run_async(None, {"input": np.ones((1, 10), np.float32)}, callback, None)
    assert has_come.wait(10)
    assert seen[0][0] is error
    assert seen[0] == seen[1]


def test_what_the_runtime_refuses_is_the_hosts_error(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    with pytest.raises(TypeError, match="incompatible function arguments"):
        session.run_async(None, {"input": np.ones((1, 10), np.float32)}, 3, None)
    with pytest.raises((AttributeError, TypeError)):
        session.run_async(None, 4, lambda *_: None, None)
    with pytest.raises(ValueError, match="Required inputs"):
        session.run_async(None, {}, lambda *_: None, None)
    assert [call.error_type for call in watched.calls()] == ["TypeError", "AttributeError", "ValueError"]
    assert watched.ring.read_drop_counts() == {}
    has_ended = threading.Event()
    session.run_async(None, {"input": np.ones((1, 10), np.float32)}, lambda *_: has_ended.set(), None)
    assert has_ended.wait(10)


def test_a_callback_may_run_the_model_again(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    feed, has_ended = {"input": np.ones((1, 10), np.float32)}, threading.Event()

    def callback(*_: object) -> None:
        session.run(None, feed)
        has_ended.set()

    session.run_async(None, feed, callback, None)
    assert has_ended.wait(10)
    assert [call.plan.operation for call in watched.calls()] == ["run_async", "run"]


def test_outputs_on_another_device_are_shapes_only(watched: Watched) -> None:
    class Remote:
        def __init__(self, value: Any) -> None:
            self._value = value

        def __getattr__(self, name: str) -> Any:
            return getattr(self._value, name)

        def device_name(self) -> str:
            return "Cuda"

        def numpy(self) -> np.ndarray:
            raise AssertionError("device memory was copy_calls")

    session = ort.InferenceSession(models.classifier())
    value = Remote(ort.OrtValue.ortvalue_from_numpy(np.ones((3, 10), np.float32)))
    session.run_with_ort_values(None, {"input": value})
    (call,) = watched.calls()
    assert call.inputs == (((3, 10), b""),)
    assert len(copies(call.outputs)[0]) == 3 * 4 * 4  # type: ignore[arg-type]


def test_a_binding_of_chosen_outputs_in_any_order(watched: Watched) -> None:
    session = ort.InferenceSession(models.labelled())
    binding = session.io_binding()
    binding.bind_cpu_input("input", np.eye(3, dtype=np.float32))
    for name in ("probabilities", "label"):
        binding.bind_output(name)
    session.run_with_iobinding(iobinding=binding, run_options=ort.RunOptions())
    (call,) = watched.calls()
    if not hasattr(binding, "_bound_outputs"):  # an older onnxruntime does not tell which outputs are bound
        assert call.outputs == ()
        return
    assert [tensor.name for tensor in call.plan.outputs] == ["probabilities", "label"]
    binding.clear_binding_outputs()
    binding.bind_output("label")
    session.run_with_iobinding(binding)
    (call,) = watched.calls()
    assert [tensor.name for tensor in call.plan.outputs] == ["label"]
    assert call.outputs == np.arange(3, dtype=np.int64).tobytes()


def test_a_binding_with_run_options_on_another_provider_is_timed_only(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier(), providers=["AzureExecutionProvider", "CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("input", np.ones((1, 10), np.float32))
    binding.bind_output("logits")
    session.run_with_iobinding(binding, ort.RunOptions())
    session.run_with_iobinding(binding)
    timed, read = watched.calls()
    assert timed.outputs == (None,)
    assert read.outputs == binding.get_outputs()[0].numpy().tobytes()


class DeviceValue(ort.OrtValue):  # type: ignore[misc]
    """An `OrtValue` in host memory that says it lies on a device."""

    def device_name(self) -> str:
        return "cuda"


class DeviceBinding(ort.IOBinding):  # type: ignore[misc]
    """A binding whose outputs say that they lie on a device."""

    def get_outputs_as_ortvaluevector(self) -> Any:
        return [DeviceValue(value) for value in super().get_outputs_as_ortvaluevector()]


@pytest.mark.parametrize("is_sampled", [True, False])
def test_bound_outputs_on_a_device_are_sampled_where_that_is_asked_for(is_sampled: bool) -> None:
    watched = Watched(samples_device_outputs=is_sampled)
    session = ort.InferenceSession(models.classifier(), providers=["AzureExecutionProvider", "CPUExecutionProvider"])
    binding = DeviceBinding(session)
    binding.bind_cpu_input("input", np.ones((1, 10), np.float32))
    binding.bind_output("logits")
    for _ in range(50):
        session.run_with_iobinding(binding)
    copied, shape = binding.get_outputs()[0].numpy().tobytes(), (((1, 4), b""),)
    outputs = [call.outputs for call in watched.calls()]
    watched.close()
    assert (outputs[0], len(outputs)) == (copied if is_sampled else shape, 50)
    assert set(outputs) <= {copied, shape}
    assert outputs.count(copied) < 25


def test_all_choices_of_outputs_of_a_session_share_what_is_sampled() -> None:
    watched = Watched(samples_device_outputs=True)
    session = ort.InferenceSession(models.labelled(), providers=["AzureExecutionProvider", "CPUExecutionProvider"])
    copied = []
    begin = time.perf_counter_ns()
    for names in (["label"], ["probabilities"], ["label", "probabilities"]):
        binding = DeviceBinding(session)
        binding.bind_cpu_input("input", np.eye(3, dtype=np.float32))
        for name in names:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        (call,) = watched.calls()
        copied.append(isinstance(call.outputs, bytes))
    took_ns = time.perf_counter_ns() - begin
    watched.close()
    assert copied[0]
    assert took_ns > DEVICE_INTERVAL_NS or copied[1:] == [False, False]


def test_reused_bound_buffers_do_not_reach_the_copies(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    rows, out = np.zeros((1, 10), np.float32), np.zeros((1, 4), np.float32)
    given, made = (ort.OrtValue.ortvalue_from_numpy(array) for array in (rows, out))
    binding = session.io_binding()
    binding.bind_ortvalue_input("input", given)
    binding.bind_ortvalue_output("logits", made)
    expected = []
    for value in (0.0, 1.0, 2.0):
        rows[:] = value
        session.run_with_iobinding(binding)
        expected.append(out.tobytes())
        out *= -1
    assert len(set(expected)) == 3
    assert [copies(call.outputs)[0] for call in watched.calls()] == expected


def test_strings_lists_of_maps_and_images_by_every_way_that_takes_them(watched: Watched) -> None:
    text = ort.InferenceSession(models.text_labels())
    rows = np.array([[0, 4, 0]], np.float32)
    waiting = Waiting()
    text.run_async(None, {"input": rows}, waiting, None)
    waiting.wait()
    (call,) = watched.calls()
    assert [tensor.layout for tensor in call.plan.outputs] == ["text", "maps"]
    assert copies(call.outputs)[0] == ((1,), ("bee",))
    values = text.run_with_ort_values(["label"], {"input": ort.OrtValue.ortvalue_from_numpy(rows)})
    assert values[0].numpy().tolist() == ["bee"]
    (call,) = watched.calls()
    assert call.outputs == (((1,), ("bee",)),)
    text.run_with_ort_values(None, {"input": ort.OrtValue.ortvalue_from_numpy(rows)})
    (call,) = watched.calls()
    assert copies(call.outputs)[0] == ((1,), ("bee",))
    picture = ort.InferenceSession(models.image(channels=3))
    pixels = ort.OrtValue.ortvalue_from_numpy(np.full((2, 3, 8, 8), 0.5, np.float32))
    picture.run_with_ort_values(None, {"image": pixels})
    (call,) = watched.calls()
    assert copies(call.inputs)[0] == ((2, 3, 8, 8), np.full((2, 3, 8, 8), 0.5, np.float32).tobytes())


def test_many_choices_of_outputs_are_bounded(watched: Watched) -> None:
    session = ort.InferenceSession(models.labelled())
    value = ort.OrtValue.ortvalue_from_numpy(np.eye(3, dtype=np.float32))
    choices = [["label"] * count for count in range(1, MAX_PLANS + 20)]
    for names in choices:
        session.run_with_ort_values(names, {"input": value})
    calls = watched.calls()
    assert len(calls) == len(choices)
    assert len({id(call.plan) for call in calls}) <= MAX_PLANS + 1


def test_foreign_methods_of_other_parameters_get_their_own_arguments() -> None:
    bare = {name: SESSION.__dict__[name] for name in RUNS}

    def foreign(name: str) -> Any:
        def method(self: Any, *args: Any, **more: Any) -> Any:
            return bare[name](self, *args, **more)

        return method

    for name in bare:
        setattr(SESSION, name, foreign(name))
    try:
        found = Watched()
        session = ort.InferenceSession(models.classifier())
        for path in RUNS.values():
            assert path(session, np.ones((2, 10), np.float32))[0].shape == (2, 4)
        assert [call.plan.operation for call in found.calls()] == list(RUNS)
        has_ended = threading.Event()
        session.run_async(
            output_names=None,
            input_feed={"input": np.ones((1, 10), np.float32)},
            callback=lambda *_: has_ended.set(),
            user_data=None,
        )
        assert has_ended.wait(10)
        with pytest.raises(TypeError, match="missing"):
            session.run_with_iobinding()
        assert [call.error_type for call in found.calls()] == [None, "TypeError"]
        found.close()
    finally:
        for name, method in bare.items():
            setattr(SESSION, name, method)


def test_set_providers_is_noted_and_later_calls_are_read_anew(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier(), providers=["AzureExecutionProvider", "CPUExecutionProvider"])
    rows = np.ones((1, 10), np.float32)
    RUNS["run"](session, rows)
    session.set_providers(["CPUExecutionProvider"])
    RUNS["run"](session, rows)
    first, second = watched.calls()
    assert (first.plan.session.provider, second.plan.session.provider) == (
        "AzureExecutionProvider", "CPUExecutionProvider",
    )  # fmt: skip
    created, changed = watched.loads
    assert (created.is_new, created.requested, changed.is_new, changed.requested) == (
        True, ("AzureExecutionProvider", "CPUExecutionProvider"), False, ("CPUExecutionProvider",),
    )  # fmt: skip
    assert changed.session is second.plan.session
    assert list(watched.recorder.sessions()) == [second.plan.session]
    assert watched.recorder.find_requested_providers(session) == ("CPUExecutionProvider",)


def test_the_runtimes_own_second_try_is_told_by_what_was_asked_for(watched: Watched) -> None:
    error_class = ort.capi.onnxruntime_pybind11_state.EPFail

    class Failing:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, *_: object) -> None:
            raise error_class("the device is gone")

    session = ort.InferenceSession(models.classifier(), providers=["AzureExecutionProvider", "CPUExecutionProvider"])
    session._sess = Failing(session._sess)
    made = session.run(None, {"input": np.ones((1, 10), np.float32)})
    assert made[0].shape == (1, 4)
    _, changed = watched.loads
    assert (changed.is_new, changed.requested) == (False, ("AzureExecutionProvider", "CPUExecutionProvider"))
    assert changed.session is not None
    assert changed.session.providers == ("CPUExecutionProvider",)
    (call,) = watched.calls()
    assert (call.error_type, call.plan.session.provider) == (None, "CPUExecutionProvider")


def test_a_set_providers_that_fails_is_the_hosts_error(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    with pytest.raises(ValueError, match="'providers' values"):
        session.set_providers([3])
    assert len(watched.loads) == 1


def test_sessions_are_freed_after_every_path(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    for path in RUNS.values():
        path(session, np.ones((1, 10), np.float32))
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    assert list(watched.recorder.sessions()) == []
    assert watched.recorder._references == {}


def test_sessions_that_are_equal_or_unhashable_are_two(watched: Watched) -> None:
    class Same(ort.InferenceSession):  # type: ignore[misc]
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    kept = [Same(models.classifier()) for _ in range(2)]
    for session in kept:
        run_with_iobinding(session, np.ones((1, 10), np.float32))
    assert len(watched.recorder.sessions()) == 2


def test_parameters_of_what_does_not_tell() -> None:
    assert read_parameter_names(max) == ()
