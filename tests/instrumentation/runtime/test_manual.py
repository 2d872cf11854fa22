"""`observe()`, as the host calls it, to what waits in the queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import otel_mlmon
from otel_mlmon.guard import FAILURE_LIMIT
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, RECORD_BYTES, Call
from otel_mlmon.instrumentation.runtime.manual import MAX_MODELS, RUNTIME, ManualRecorder
from otel_mlmon.instrumentation.runtime.runtime import Capture
from otel_mlmon.instrumentation.runtime.values import SMALL_BYTES
from tests.support.calls import records_of

NO_LABEL: Any = object()


class Watched:
    """`observe()` into a queue of its own."""

    def __init__(self, *, max_bytes: int = 10**9) -> None:
        self.attended: list[bool] = []
        self.queue = CallQueue(fields=FIELDS, max_records=100_000, max_bytes=max_bytes, attend=self.attended.append)
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
        return list(map(Call._make, records_of(self.queue.take(100_000))))


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
    assert sides(call) == (({"age": 41, "plan": "gold"},), ("stay", 0.93, None, None))
    session = call.plan.session
    assert (call.plan.operation, call.plan.is_observed) == ("observe", True)
    assert (session.model_name, session.metadata, session.runtime_name) == ("churn", {"version": "3"}, "numpy")
    assert (session.provider, session.runtime_version) == ("", __import__("numpy").__version__)


def test_a_block_is_measured_and_its_plan_shared(watched: Watched) -> None:
    with otel_mlmon.observe("churn", features={"age": 1}) as prediction:
        prediction.label, prediction.value = "stay", 1.5
        prediction.features = {"age": 2}
    otel_mlmon.observe("churn", label="stay")
    first, second = watched.calls()
    assert first.ended_ns > first.started_ns
    assert sides(first) == (({"age": 2},), ("stay", None, 1.5, None))
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


BAD = [
    {"label": object()},
    {"label": {"a": 1}},
    {"confidence": [object()]},
    {"value": [[1, 2], [3, 4]]},
    {"scores": "text"},
    {"features": [1, 2], "label": "a"},
    {"duration_s": -0.001},
    {"duration_s": float("nan")},
    {"duration_s": float("inf")},
    {"duration_s": "2 ms"},
    {"label": "a", "version": ["3"]},
]


@pytest.mark.guarded
@pytest.mark.parametrize("arguments", BAD, ids=range(len(BAD)))
def test_values_that_cannot_be_read_are_dropped_and_counted(watched: Watched, arguments: dict[str, Any]) -> None:
    otel_mlmon.observe("churn", **arguments)
    assert (watched.calls(), watched.queue.dropped()) == ([], {"capture_failed": 1})


@pytest.mark.guarded
def test_after_too_many_faults_it_is_switched_off(watched: Watched) -> None:
    for _ in range(FAILURE_LIMIT):
        otel_mlmon.observe("churn", label=NO_LABEL)
    otel_mlmon.observe("churn", label="stay")
    with pytest.raises(KeyError), otel_mlmon.observe("churn"):
        raise KeyError
    assert watched.queue.dropped() == {"capture_failed": FAILURE_LIMIT, "switched_off": 2}


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
    assert (watched.calls(), watched.queue.dropped()) == ([], {"capture_failed": 4})


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
        assert watched.queue.dropped()["buffer_full"] > 0
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
