"""`observe()`, as the host calls it, to what waits in the queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import otel_mlmon
from otel_mlmon import semconv
from otel_mlmon.guard import FAILURE_LIMIT
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, RECORD_BYTES, Call, ObservedValues, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.manual import MAX_FAILURES, MAX_MODELS, RUNTIME, ManualRecorder
from otel_mlmon.instrumentation.runtime.runtime import Capture
from otel_mlmon.instrumentation.runtime.values import SMALL_BYTES
from otel_mlmon.internal_events import JOURNAL
from tests.support.calls import records_of

NO_LABEL: Any = object()


class Watched:
    """`observe()` into a queue of its own."""

    def __init__(self, *, max_bytes: int = 10**9) -> None:
        self.attended: list[bool] = []
        self.queue = CallQueue(
            fields=FIELDS,
            max_records=100_000,
            max_bytes=max_bytes,
            attend=self.attended.append,
            weigh=estimate_call_bytes,
        )
        self.read: Callable[[None], object] = lambda _: "context"
        self.recorder: ManualRecorder = RUNTIME.instrument(
            Capture(
                sink=self.queue,
                loads=deque(),
                context_reader=lambda: self.read,
                model_name=lambda _: "",
                has_output_function=lambda _: False,
            )
        )

    def calls(self) -> list[Call]:
        return list(map(Call._make, records_of(self.queue.take_calls(100_000))))


def sides(call: Call) -> tuple[Any, Any]:
    return call.inputs, call.outputs


@pytest.fixture
def watched() -> Iterator[Watched]:
    found = Watched()
    yield found
    assert found.recorder.undo()


def test_a_prediction_is_recorded_at_once(watched: Watched) -> None:
    features: dict[str, object] = {"age": 41, "plan": "gold"}
    otel_mlmon.observe(
        "churn", label="stay", confidence=0.93, features=features, duration_s=0.002, version="3", runtime="numpy"
    )
    features["age"] = 42
    (call,) = watched.calls()
    assert (call.ended_ns - call.started_ns, call.context, call.error_type) == (2_000_000, "context", None)
    assert sides(call) == (({"age": 41, "plan": "gold"}, None), ("stay", 0.93, None, None))
    session = call.plan.session
    assert (call.plan.operation, call.plan.is_observed) == ("observe", True)
    assert (session.model_name, session.model_version, session.metadata) == ("churn", "3", {})
    assert session.runtime_name == "numpy"
    assert (session.provider, session.runtime_version) == ("", __import__("numpy").__version__)


def test_a_block_is_measured_and_its_plan_shared(watched: Watched) -> None:
    with otel_mlmon.observe("churn", features={"age": 1}) as prediction:
        prediction.label, prediction.value = "stay", 1.5
        prediction.features = {"age": 2}
    otel_mlmon.observe("churn", label="stay")
    first, second = watched.calls()
    assert first.ended_ns > first.started_ns
    assert sides(first) == (({"age": 2}, None), ("stay", None, 1.5, None))
    assert second.ended_ns == second.started_ns
    assert first.plan is second.plan
    assert first.plan.session.runtime_name == "manual"
    assert list(watched.recorder.sessions()) == [first.plan.session]
    assert watched.recorder.session_of("churn") is None


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_an_exception_in_a_block_is_a_failed_call_and_the_hosts(watched: Watched, error: BaseException) -> None:
    prediction = otel_mlmon.observe("churn", features={"age": 1})
    prediction.label = "stay"
    with pytest.raises(type(error)) as caught, prediction:
        raise error
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    (call,) = watched.calls()
    assert (call.inputs, call.outputs, call.error_type) == ((), (), type(error).__name__)


def leave_block(model: str, error: BaseException, inner: str = "") -> BaseException:
    """Raises an exception out of a block, and out of one inside it."""
    with pytest.raises(type(error)), otel_mlmon.observe(model):  # noqa: PT012 - the block is what is tested
        if inner:
            with otel_mlmon.observe(inner):
                raise error
        raise error
    return error


def name_of(recorder: ManualRecorder, error: BaseException) -> str | None:
    session = recorder.session_of(error)
    return session.model_name if session else None


def test_an_exception_out_of_a_block_tells_its_model(watched: Watched) -> None:
    first, second = leave_block("churn", KeyError(1)), leave_block("ensemble", KeyError(2), inner="tree")
    assert [name_of(watched.recorder, error) for error in (first, second)] == ["churn", "tree"]
    # The same exception again: the model of the block that it left last.
    assert name_of(watched.recorder, leave_block("later", first)) == "later"
    with pytest.raises(KeyError) as caught:
        raise KeyError(3)
    assert name_of(watched.recorder, caught.value) is None


def test_an_exception_in_the_place_of_a_freed_one_is_not_taken_for_it(watched: Watched) -> None:
    for _ in range(200):
        leave_block("churn", KeyError(1))
        with pytest.raises(KeyError) as caught:
            raise KeyError(2)
        assert name_of(watched.recorder, caught.value) is None


def test_exceptions_without_end_are_forgotten_the_oldest_first(watched: Watched) -> None:
    assert MAX_FAILURES == 64
    errors = [leave_block(f"m{number}", KeyError(number)) for number in range(MAX_FAILURES + 1)]
    assert [name_of(watched.recorder, error) for error in errors] == [None, *(f"m{n + 1}" for n in range(MAX_FAILURES))]


def test_without_instrument_nothing_happens() -> None:
    otel_mlmon.observe("churn", label=NO_LABEL, duration_s=-1)
    with otel_mlmon.observe("churn") as prediction:
        prediction.label = "stay"
    with pytest.raises(KeyError), otel_mlmon.observe("churn"):
        raise KeyError
    watched = Watched()
    with otel_mlmon.observe("churn"):
        watched.recorder.undo()
    assert watched.calls() == []


def test_mistakes_in_the_program_are_type_errors_whether_it_is_monitored_or_not() -> None:
    observe: Any = otel_mlmon.observe
    for watch in (False, True):
        watched = Watched() if watch else None
        for arguments in ({"model": 3, "label": "a"}, {"model": None}, {"model": "m", "lable": "a"}, {}):
            with pytest.raises(TypeError):
                observe(**arguments)
        with pytest.raises(TypeError):
            observe("m", "stay")
        with pytest.raises(AttributeError), observe("m") as prediction:
            prediction.lable = "a"
        if watched is not None:
            assert watched.recorder.undo()


class Broken:
    """A value of a library's that cannot be read now, as a tensor of PyTorch's that requires its gradient."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __array__(self, *_: object, **__: object) -> Any:
        raise self.error


NOTHING = (None, None, None, None)
UNREADABLE_CALLS: list[tuple[dict[str, Any], object, tuple[object, ...], dict[str, int]]] = [
    # Arguments beside a duration of 2 ms; the features, label, confidence, value and scores that are read; what is not.
    ({"label": NO_LABEL}, None, NOTHING, {"label": 1}),
    ({"label": {"a": 1}, "confidence": 0.5}, None, (None, 0.5, None, None), {"label": 1}),
    ({"label": ["a", NO_LABEL, "b"]}, None, (ObservedValues(3, ("a", None, "b")), None, None, None), {"label": 1}),
    ({"confidence": [NO_LABEL, NO_LABEL], "label": "a"}, None, ("a", None, None, None), {"confidence": 1}),
    ({"value": [[1, 2], [3, 4]], "label": "a"}, None, ("a", None, None, None), {"value": 1}),
    ({"scores": "text", "label": "a", "features": {"x": 1}}, {"x": 1}, ("a", None, None, None), {"scores": 1}),
    ({"scores": Broken(RuntimeError()), "value": 1}, None, (None, None, 1, None), {"scores": 1}),
    ({"confidence": Broken(OverflowError())}, None, NOTHING, {"confidence": 1}),
    ({"features": [1, 2], "label": "a"}, None, ("a", None, None, None), {"features": 1}),
    ({"label": NO_LABEL, "value": NO_LABEL, "features": 3}, None, NOTHING, {"label": 1, "value": 1, "features": 1}),
    ({"label": "a", "version": ["3"]}, None, ("a", None, None, None), {"version": 1}),
    ({"label": "a", "runtime": {}, "version": []}, None, ("a", None, None, None), {"version": 1, "runtime": 1}),
]


@pytest.mark.parametrize("case", UNREADABLE_CALLS, ids=range(len(UNREADABLE_CALLS)))
def test_what_cannot_be_read_is_left_out_of_the_call_and_counted(watched: Watched, case: Any) -> None:
    arguments, features, outcome, unreadable = case
    otel_mlmon.observe("churn", duration_s=0.002, **arguments)
    given = {name: value for name, value in arguments.items() if name in {"features", "version", "runtime"}}
    with otel_mlmon.observe("churn", **given) as prediction:
        for name in arguments.keys() - given.keys():
            setattr(prediction, name, arguments[name])
    calls = watched.calls()
    for call in calls:
        assert sides(call) == ((features, unreadable), outcome)
        assert (call.plan.session.model_name, call.plan.session.model_version) == ("churn", "")
        assert call.plan.session.runtime_name == "manual"
    assert calls[0].ended_ns - calls[0].started_ns == 2_000_000
    assert calls[1].ended_ns > calls[1].started_ns
    assert (len(calls), watched.queue.read_drop_counts()) == (2, {})


@pytest.mark.parametrize("duration_s", [-0.001, float("nan"), float("inf"), "2 ms", [1.0]])
def test_a_duration_that_cannot_be_read_was_not_measured(watched: Watched, duration_s: Any) -> None:
    otel_mlmon.observe("churn", label="a", duration_s=duration_s)
    (call,) = watched.calls()
    assert call.started_ns == call.ended_ns
    assert sides(call) == ((None, {"duration_s": 1}), ("a", None, None, None))


@pytest.mark.parametrize("argument", ["version", "runtime"])
def test_a_failed_block_of_an_unreadable_version_is_a_failed_call(watched: Watched, argument: str) -> None:
    unreadable: Any = {argument: ["3"]}
    with pytest.raises(KeyError), otel_mlmon.observe("churn", **unreadable):
        raise KeyError
    (call,) = watched.calls()
    assert (sides(call), call.error_type) == (((None, {argument: 1}), ()), "KeyError")


@pytest.mark.guarded
def test_of_a_value_that_raises_anything_else_the_times_are_recorded(watched: Watched) -> None:
    broken = Broken(AssertionError("mine"))
    otel_mlmon.observe("churn", scores=broken, label="a", duration_s=0.002)
    otel_mlmon.observe("churn", scores=broken, duration_s=-1)
    first, second = watched.calls()
    assert (sides(first), first.ended_ns - first.started_ns) == (((None, None), NOTHING), 2_000_000)
    assert (sides(second), second.ended_ns - second.started_ns) == (((None, {"duration_s": 1}), NOTHING), 0)
    assert watched.queue.read_drop_counts() == {}
    assert JOURNAL.read_totals(semconv.FAILURES.name) == {(("error.type", "AssertionError"), ("stage", "observe")): 2}


@pytest.mark.guarded
def test_a_passing_fault_of_ours_is_counted_and_loses_nothing(watched: Watched) -> None:
    errors = [RuntimeError()]

    def read(_: None) -> object:
        if errors:
            raise errors.pop()
        return "context"

    watched.read = read
    watched.recorder.renew_context()
    otel_mlmon.observe("churn", label="a", duration_s=0.002)
    (call,) = watched.calls()
    assert (sides(call), call.context) == (((None, None), ("a", None, None, None)), "context")
    assert JOURNAL.read_totals(semconv.FAILURES.name) == {(("error.type", "RuntimeError"), ("stage", "observe")): 1}


@pytest.mark.guarded
def test_after_too_many_faults_it_is_switched_off(watched: Watched) -> None:
    for _ in range(FAILURE_LIMIT):
        otel_mlmon.observe("churn", label=Broken(AssertionError()))
    otel_mlmon.observe("churn", label="stay")
    with pytest.raises(KeyError), otel_mlmon.observe("churn"):
        raise KeyError
    assert (len(watched.calls()), watched.queue.read_drop_counts()) == (FAILURE_LIMIT, {"switched_off": 2})


def test_values_that_cannot_be_read_never_switch_it_off(watched: Watched) -> None:
    for _ in range(FAILURE_LIMIT + 1):
        otel_mlmon.observe("churn", label=NO_LABEL)
    assert (len(watched.calls()), watched.queue.read_drop_counts()) == (FAILURE_LIMIT + 1, {})


@pytest.mark.guarded
def test_a_context_that_cannot_be_read_is_a_drop_and_an_interrupt_passes(watched: Watched) -> None:
    def raises(error: BaseException) -> Callable[[None], object]:
        def read(_: None) -> object:
            raise error

        return read

    watched.read = raises(RuntimeError())
    watched.recorder.renew_context()
    otel_mlmon.observe("churn", label="stay")
    with pytest.raises(KeyError), otel_mlmon.observe("churn"):
        raise KeyError
    watched.read = raises(KeyboardInterrupt())
    watched.recorder.renew_context()
    with pytest.raises(KeyboardInterrupt):
        otel_mlmon.observe("churn", label="stay")
    with pytest.raises(KeyboardInterrupt), otel_mlmon.observe("churn"):
        raise KeyError
    assert (watched.calls(), watched.queue.read_drop_counts()) == ([], {"capture_failed": 4})


def test_small_calls_are_appended_until_their_bytes_may_count() -> None:
    room = 8
    watched = Watched(max_bytes=room * SMALL_BYTES)
    try:
        for _ in range(room + 2):
            otel_mlmon.observe("churn", label="stay")
        # The first is offered, since the queue was empty; so are those from `room` on.
        assert len(watched.queue) == room + 2
        assert watched.attended == [False]
        for _ in range(2 * room * SMALL_BYTES // RECORD_BYTES):
            otel_mlmon.observe("churn", label="stay")
        assert watched.attended[1]
        assert watched.queue.read_drop_counts()["buffer_full"] > 0
    finally:
        watched.recorder.undo()


def test_models_without_end_are_forgotten_the_oldest_first(watched: Watched) -> None:
    assert MAX_MODELS == 1024
    for number in range(MAX_MODELS + 1):
        otel_mlmon.observe(f"m{number}", label="stay")
    names = [session.model_name for session in watched.recorder.sessions()]
    assert (len(names), names[0], names[-1]) == (MAX_MODELS, "m1", f"m{MAX_MODELS}")
    assert len(watched.calls()) == MAX_MODELS + 1


def test_undoing_an_earlier_instrumentation_leaves_the_later_one(watched: Watched) -> None:
    later = Watched()
    assert watched.recorder.undo()
    otel_mlmon.observe("churn", label="stay")
    assert (len(watched.calls()), len(later.calls())) == (0, 1)
    assert later.recorder.undo()
