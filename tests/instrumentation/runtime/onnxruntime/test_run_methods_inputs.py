"""Whatever a host feeds and asks for: every call is recorded, by what it really made or by its times only."""

from __future__ import annotations

import collections
import copy
import gc
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, Call, Item, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.onnxruntime import patches as onnxruntime
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder
from otel_mlmon.instrumentation.runtime.runtime import Capture
from otel_mlmon.instrumentation.settings import ModelOptions
from tests.support import models
from tests.support.calls import copies, copy_calls, records_of, summarize
from tests.support.runs import RUNS, Waiting

ROWS = np.arange(10, dtype=np.float32).reshape(1, 10)


class Watched:
    def __init__(self) -> None:
        self.queue = CallQueue(
            fields=FIELDS, max_records=100_000, max_bytes=10**9, attend=lambda _: None, weigh=estimate_call_bytes
        )
        self.recorder = CallRecorder(
            Capture(
                sink=self.queue,
                loads=collections.deque(),
                context_reader=lambda: lambda _: None,
                model_name=lambda _: "",
                has_output_function=lambda _: False,
            ),
            runtime_version="1",
            are_views=True,
        )
        self.patches = onnxruntime.patch_run_methods(ort, self.recorder)

    def calls(self) -> list[Call]:
        return list(map(Call._make, records_of(self.queue.take_calls(100_000))))

    def outputs(self) -> list[dict[str, Item]]:
        """The copies of the outputs of each call, by name."""
        return [
            dict(zip([tensor.name for tensor in call.plan.outputs], copies(call.outputs), strict=True))
            for call in self.calls()
        ]

    def close(self) -> None:
        for patch in self.patches.values():
            patch.restore_method()
        self.recorder.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.close()


def graph(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray] | None = None
) -> bytes:
    arrays = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, arrays),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def optional_model() -> bytes:
    """`x` optional float (N, 10) to `y` (N, 10): the input, or zeros where there is none."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 10]))
    present = helper.make_graph(
        [helper.make_node("OptionalGetElement", ["x"], ["a"])], "present", [], [floats("a", "N", 10)]
    )
    absent = helper.make_graph(
        [helper.make_node("Identity", ["zeros"], ["b"])],
        "absent", [], [floats("b", "N", 10)], [numpy_helper.from_array(np.zeros((1, 10), np.float32), "zeros")],
    )  # fmt: skip
    nodes = [
        helper.make_node("OptionalHasElement", ["x"], ["has"]),
        helper.make_node("If", ["has"], ["y"], then_branch=present, else_branch=absent),
    ]
    return graph(nodes, [helper.make_value_info("x", kind)], [floats("y", "N", 10)])


def two_outputs() -> bytes:
    """`input` (N, 10) to `first` and `second`, of one and of two columns, and `double` (N, 10)."""
    return graph(
        [
            helper.make_node("MatMul", ["input", "one"], ["first"]),
            helper.make_node("MatMul", ["input", "two"], ["second"]),
            helper.make_node("Add", ["input", "input"], ["double"]),
        ],
        [floats("input", "N", 10)],
        [floats("first", "N", 1), floats("second", "N", 2), floats("double", "N", 10)],
        {"one": np.ones((10, 1), np.float32), "two": np.full((10, 2), 2, np.float32)},
    )


def reshaped() -> bytes:
    """`input` (N, 4), of the shape of `shape`, as `output`, of which the model says that it is (N, 4)."""
    return graph(
        [helper.make_node("Reshape", ["input", "shape"], ["output"])],
        [floats("input", "N", 4), helper.make_tensor_value_info("shape", TensorProto.INT64, ["K"])],
        [floats("output", "N", 4)],
    )


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("kind", [dict, lambda feed: collections.defaultdict(lambda: ROWS, feed)])
def test_an_optional_input_may_be_left_out(watched: Watched, kind: Callable[[Any], Any], is_first: bool) -> None:
    session = ort.InferenceSession(optional_model())
    feeds = [{}, {}, {"x": ROWS}] if is_first else [{"x": ROWS}, {}, {}]
    for feed in map(kind, feeds):
        size = len(feed)
        session.run(None, feed)
        assert len(feed) == size
        waiting = Waiting()
        session.run_async(None, feed, waiting, None)
        waiting.wait()
    assert [(call.plan.operation, copies(call.inputs), len(copies(call.outputs))) for call in watched.calls()] == [
        (operation, (feed["x"].tobytes() if feed else None,), 1) for feed in feeds for operation in ("run", "run_async")
    ]
    assert watched.queue.read_drop_counts() == {}


NAMES: list[Callable[[list[str]], Any]] = [
    list, tuple, iter, collections.deque, dict.fromkeys, np.array, lambda names: (name for name in names),
]  # fmt: skip


def run(session: Any, names: Any) -> Any:
    return session.run(names, {"input": ROWS})


def run_with_ort_values(session: Any, names: Any) -> Any:
    values = session.run_with_ort_values(names, {"input": ort.OrtValue.ortvalue_from_numpy(ROWS)})
    return [value.numpy() for value in values]


def run_async(session: Any, names: Any) -> Any:
    waiting = Waiting()
    session.run_async(names, {"input": ROWS}, waiting, None)
    return waiting.wait()[0]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    choices=st.lists(
        st.tuples(
            st.sampled_from([run, run_with_ort_values, run_async]),
            st.lists(st.sampled_from(["first", "second", "double"]), max_size=4),
            st.sampled_from(NAMES),
        ),
        max_size=8,
    )
)
def test_outputs_have_the_names_they_were_asked_for_by(watched: Watched, choices: list[Any]) -> None:
    """Whatever kind of collection names them; of an iterator, which is read once, the call has its times only."""
    watched.calls()
    session = ort.InferenceSession(two_outputs())
    truth = {"first": ROWS.sum(keepdims=True), "second": np.full((1, 2), 2 * ROWS.sum()), "double": 2 * ROWS}
    accepted = 0
    for run_by, names, kind in choices:
        if not names and not hasattr(kind(names), "__len__"):
            continue  # onnxruntime refuses it
        try:
            bare = getattr(ort.InferenceSession, run_by.__name__).__wrapped__
            expected = bare(session, kind(names), {"input": ROWS}) if run_by is run else None
            results = run_by(session, kind(names))
        except Exception:  # noqa: BLE001 - what onnxruntime refuses, such as an iterator of no name
            continue
        accepted += 1
        if expected is not None:
            assert [array.tobytes() for array in results] == [array.tobytes() for array in expected]
        if names:
            assert [array.tobytes() for array in results] == [
                truth[name].astype(np.float32).tobytes() for name in names
            ]
    recorded = watched.calls()
    assert len([call for call in recorded if call.error_type is None]) == accepted
    assert watched.queue.read_drop_counts() == {}
    for call in recorded:
        for tensor, item in zip(
            call.plan.outputs, copies(call.outputs) if call.error_type is None else (), strict=False
        ):
            assert item == truth[tensor.name].astype(np.float32).tobytes()


def test_an_iterator_of_names_is_read_by_onnxruntime_alone(watched: Watched) -> None:
    session = ort.InferenceSession(two_outputs())
    for run_by in (run, run_with_ort_values, run_async):
        for _ in range(2):
            assert run_by(session, (name for name in ["second"]))[0].shape == (1, 2)
    assert watched.outputs() == [{}] * 6


@pytest.mark.parametrize("shape", [(2, 4), (4, 2), (8,), (2, 2, 2), (1, 8), (8, 1), (4, 2, 1)])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_output_of_another_shape_than_the_model_says_has_its_own(
    watched: Watched, shape: tuple[int, ...], is_first: bool
) -> None:
    """Only an output that is bound is held against what the model says of it."""
    rows, session = np.arange(8, dtype=np.float32).reshape(2, 4), ort.InferenceSession(reshaped())
    expected = rows.tobytes() if shape == (2, 4) else (shape, rows.tobytes())
    for true_shape in (shape,) if is_first else ((2, 4), shape):
        session.run(None, {"input": rows, "shape": np.array(true_shape, np.int64)})
    value = ort.OrtValue.ortvalue_from_numpy
    session.run_with_ort_values(None, {"input": value(rows), "shape": value(np.array(shape, np.int64))})
    assert watched.outputs()[-2:] == [{"output": expected}] * 2


@pytest.mark.guarded
def test_what_cannot_be_copied_has_its_times_only(watched: Watched) -> None:
    class Broken(dict[str, Any]):
        def get(self, *_: object) -> Any:
            raise RuntimeError("mine")

    session = ort.InferenceSession(two_outputs())
    session.run(None, Broken(input=ROWS))
    waiting = Waiting()
    session.run_async(None, Broken(input=np.ones((1000, 10), np.float32)), waiting, None)
    waiting.wait()
    session.run(None, {"input": ROWS})
    calls = watched.calls()
    assert [(call.plan.operation, call.inputs, len(call.outputs), call.error_type) for call in calls] == [
        ("run", (), 0, None), ("run_async", (), 0, None), ("run", ROWS.tobytes(), 3, None),
    ]  # fmt: skip
    assert all(call.ended_ns > call.started_ns for call in calls)
    assert watched.queue.read_drop_counts() == {}
    watched.recorder.stage.reset_stage()


ARRAYS: list[Callable[[np.ndarray], Any]] = [
    lambda rows: rows,
    np.asfortranarray,
    lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
    lambda rows: rows[::-1],
    lambda rows: np.ma.array(rows),
    np.ndarray.tolist,
    lambda rows: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(rows)),
    lambda rows: rows.astype(object),
    lambda rows: rows.astype(np.float64),
    lambda rows: rows[:, :9],
    lambda rows: rows[0] if len(rows) else rows,
]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(ARRAYS), st.integers(0, 300), st.sampled_from(["session", "copy", "subclass"])),
        max_size=12,
    )
)
def test_every_call_is_recorded_by_what_the_model_was_given_and_made(watched: Watched, calls: list[Any]) -> None:
    class Subclass(ort.InferenceSession):  # type: ignore[misc]
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    watched.calls()
    session = ort.InferenceSession(models.identity("N", 10))
    sessions = {
        "session": session,
        "copy": copy.copy(session),
        "subclass": Subclass(models.identity("N", 10)),
    }
    accepted = []
    for kind, size, name in calls:
        rows = np.random.default_rng(size).random((size, 10), dtype=np.float32)
        try:
            accepted.append(sessions[name].run(None, {"input": kind(rows)})[0])
        except Exception as error:  # noqa: BLE001 - what onnxruntime refuses
            accepted.append(error)
    recorded = watched.calls()
    assert [call.error_type for call in recorded] == [
        type(result).__qualname__ if isinstance(result, Exception) else None for result in accepted
    ]
    for call, result in zip(recorded, accepted, strict=True):
        if isinstance(result, Exception):
            assert (call.inputs, call.outputs) == ((), ())
            continue
        assert call.outputs == result.tobytes()
        (item,) = copies(call.inputs)
        if isinstance(item, bytes):
            assert item == result.tobytes()
        elif item is not None:  # of an OrtValue, nothing
            assert item[0] == result.shape
            assert isinstance(item[1], bytes)
            assert set(np.frombuffer(item[1], "V40").tolist()) <= set(result.view("V40").ravel().tolist())
    assert watched.queue.read_drop_counts() == {}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["first", "second", "double"]), min_size=1, max_size=3, unique=True),
            st.integers(0, 60),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_a_binding_that_is_bound_anew_between_calls(watched: Watched, steps: list[Any]) -> None:
    session = ort.InferenceSession(two_outputs())
    binding, bound, expected = session.io_binding(), set[str](), []
    watched.calls()
    for names, size, is_cleared in steps:
        rows = np.random.default_rng(size).random((size if is_cleared else 5, 10), dtype=np.float32)
        if is_cleared or bound:
            binding.clear_binding_outputs()
            bound.clear()
        binding.bind_cpu_input("input", rows)
        for name in names:
            binding.bind_output(name)
            bound.add(name)
        session.run_with_iobinding(binding)
        results = session.run(None, {"input": rows})
        watched_outputs = dict(zip(("first", "second", "double"), results, strict=True))
        expected.append({name: watched_outputs[name].tobytes() for name in bound})
    by_binding = [call for call in watched.calls() if call.plan.operation == "run_with_iobinding"]
    assert [
        dict(zip([tensor.name for tensor in call.plan.outputs], copies(call.outputs), strict=True))
        for call in by_binding
    ] == expected
    assert watched.queue.read_drop_counts() == {}


@pytest.mark.parametrize("method", RUNS)
def test_no_array_of_the_host_is_kept(watched: Watched, method: str) -> None:
    session = ort.InferenceSession(models.identity("N", 10))
    for size in (1, 1, 1000):
        rows = np.ones((size, 10), np.float32)
        results = RUNS[method](session, rows)
        references = [weakref.ref(rows), *map(weakref.ref, results)]
        del rows, results
        gc.collect()
        assert [reference() for reference in references] == [None] * len(references)
    assert len(watched.calls()) == 3


def test_what_ends_after_the_instrumentation_was_removed_changes_nothing() -> None:
    """The instrumentation is removed while eight threads run the model by every method."""
    session = ort.InferenceSession(models.identity("N", 10))
    watched, has_begun, is_over = Watched(), threading.Barrier(9), threading.Event()
    errors: list[BaseException] = []
    made = collections.Counter[str]()

    def work(number: int) -> None:
        has_begun.wait(10)
        while not is_over.is_set():
            for name, run_by in RUNS.items():
                try:
                    assert np.array_equal(run_by(session, ROWS)[0], ROWS)
                    made[f"{name} {number}"] += 1
                except Exception as error:  # noqa: BLE001 - raised again by the assertion
                    errors.append(error)
                    return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    has_begun.wait(10)
    while not errors and sum(made.values()) < 200:
        pass
    watched.close()
    counted = sum(made.values())
    while not errors and sum(made.values()) < counted + 200:
        pass
    is_over.set()
    for thread in threads:
        thread.join(10)
    assert errors == []
    assert len(watched.calls()) >= 200
    assert watched.queue.read_drop_counts() == {}
    assert not hasattr(session, "_otel_mlmon")


def test_an_output_of_a_gigabyte_costs_no_copy_of_it(watched: Watched) -> None:
    """Memory that is mapped and was never touched takes none; a copy of it would."""
    size = 1 << 28
    shaped = graph(
        [helper.make_node("Expand", ["input", "shape"], ["output"])],
        [floats("input", 1, 1), helper.make_tensor_value_info("shape", TensorProto.INT64, [2])],
        [floats("output", "N", "K")],
    )
    session = ort.InferenceSession(shaped)
    small = {"input": np.ones((1, 1), np.float32), "shape": np.array([4, 4], np.int64)}
    session.run(None, small)
    copier = session._otel_mlmon[None]
    for shape in ((1, size), (size, 1), (size // 4, 4)):
        copier(small, [np.broadcast_to(np.float32(1), shape)], 1, 2)
    first, *others = watched.outputs()
    assert first == {"output": ((4, 4), np.ones((4, 4), np.float32).tobytes())}
    assert [outputs["output"][0] for outputs in others] == [(1, size), (size, 1), (size // 4, 4)]  # type: ignore[index]
    assert sum(map(len, (outputs["output"][1] for outputs in others))) <= 3 * 65_536  # type: ignore[index, arg-type]


@pytest.mark.parametrize(
    "shape", [(1, 1 << 28), (1 << 28, 1), (1 << 26, 4), (1 << 18, 1000), (4, 1 << 18, 256)], ids=str
)
def test_the_first_call_of_a_huge_output_costs_little(shape: tuple[int, ...]) -> None:
    """Copied and decoded by 20 ms of CPU time and 10 MB at most; the values are mapped, not there."""
    outputs = {"output": np.broadcast_to(np.float32(0.25), shape)}
    feed = {"input": np.ones((1, 10), np.float32)}

    def read() -> None:
        summarize(copy_calls([(feed, outputs)]), ModelOptions())

    summarize(copy_calls([(feed, {"output": np.ones((1, 4), np.float32)})]), ModelOptions())  # imports
    costs_s = []
    for _ in range(5):
        started_s = time.thread_time()
        read()
        costs_s.append(time.thread_time() - started_s)
    tracemalloc.start()
    read()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert min(costs_s) <= 0.02
    assert peak_bytes <= 10_000_000
