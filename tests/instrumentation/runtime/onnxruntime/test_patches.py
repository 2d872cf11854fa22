from __future__ import annotations

import copy
import gc
import inspect
import weakref
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, Call, Load, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.onnxruntime import patches as onnxruntime
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder
from otel_mlmon.instrumentation.runtime.runtime import Capture
from tests.support import models
from tests.support.calls import copies, records_of

SESSION = ort.capi.onnxruntime_inference_collection.Session
FEED = {"input": np.ones((1, 10), np.float32)}


class Watched:
    def __init__(self) -> None:
        self.read: Callable[[None], object] = lambda _: "context"
        self.ring = CallQueue(
            fields=FIELDS, max_records=100_000, max_bytes=10**9, attend=lambda _: None, weigh=estimate_call_bytes
        )
        self.loads: deque[Load] = deque()
        self.recorder = CallRecorder(
            Capture(
                sink=self.ring,
                loads=self.loads,
                context_reader=lambda: self.read,
                model_name=lambda _: "",
                has_output_function=lambda _: False,
            ),
            runtime_version="1",
        )
        self.patches = onnxruntime.patch_run_methods(ort, self.recorder)

    def calls(self) -> list[Call]:
        return list(map(Call._make, records_of(self.ring.take_calls(100_000))))

    def undo(self) -> dict[str, bool]:
        return {name: patch.restore_method() for name, patch in self.patches.items()}


@pytest.fixture
def watched() -> Iterator[Watched]:
    before = dict(SESSION.__dict__), ort.InferenceSession.__dict__["__init__"]
    found = Watched()
    yield found
    found.undo()
    found.recorder.close()
    assert (dict(SESSION.__dict__), ort.InferenceSession.__dict__["__init__"]) == before


def test_signature_and_documentation_stay() -> None:
    bare = ort.InferenceSession.run
    found = Watched()
    ours = ort.InferenceSession.run
    found.undo()
    assert ours is not bare
    assert inspect.signature(ours) == inspect.signature(bare)
    assert (ours.__doc__, ours.__name__, ours.__qualname__) == (bare.__doc__, bare.__name__, bare.__qualname__)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(0, 40), names=st.sampled_from([None, [], ["logits"], ("logits",)]), data=st.data())
def test_results_are_those_of_the_bare_call(
    watched: Watched, rows: int, names: list[str] | None, data: st.DataObject
) -> None:
    session = ort.InferenceSession(models.classifier())
    values = data.draw(st.lists(st.floats(-9, 9, width=32), min_size=10, max_size=10))
    feed = {"input": np.tile(np.array(values, dtype=np.float32), (rows, 1))}
    expected = session.run.__wrapped__(session, names, feed)
    by_position = session.run(names, feed)
    by_keyword = session.run(output_names=names, input_feed=feed, run_options=None)
    assert np.array_equal(by_position[0], expected[0])
    assert np.array_equal(by_keyword[0], expected[0])
    assert len(watched.calls()) == 2


def test_the_hosts_exception_is_the_same_object(watched: Watched) -> None:
    class Broken(ort.InferenceSession):  # type: ignore[misc]
        def _validate_input(self, feed_input_names: list[str]) -> None:
            raise error

    error = KeyError("mine")
    session = Broken(models.classifier())
    with pytest.raises(KeyError) as caught:
        session.run(None, FEED)
    assert caught.value is error
    (call,) = watched.calls()
    assert (call.error_type, call.inputs, call.outputs, call.context) == ("KeyError", (), (), "context")


def test_an_interrupt_passes(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    watched.read = interrupt
    with pytest.raises(KeyboardInterrupt):
        session.run(None, FEED)
    assert watched.ring.read_drop_counts() == {"capture_failed": 1}


def test_reused_buffers_and_work_in_place_do_not_reach_the_copies(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    buffer = np.zeros((1, 10), np.float32)
    expected = []
    for value in (0.0, 1.0, 2.0):
        buffer[:] = value
        result = session.run(None, {"input": buffer})[0]
        expected.append((buffer.tobytes(), result.tobytes()))
        result *= -1
    buffer[:] = 9
    assert [(copies(call.inputs)[0], copies(call.outputs)[0]) for call in watched.calls()] == expected


def test_sessions_made_before_subclasses_copies_and_subsets(watched: Watched) -> None:
    watched.undo()
    early = ort.InferenceSession(models.labelled())
    again = Watched()
    try:

        class Own(ort.InferenceSession):  # type: ignore[misc]
            def run(self, output_names, input_feed, run_options=None):  # type: ignore[no-untyped-def]
                return super().run(output_names, input_feed, run_options)

        feed = {"input": np.zeros((1, 3), np.float32)}
        early.run(["probabilities"], feed)
        early.run(["label"], feed)
        copy.copy(early).run(None, feed)
        Own(models.labelled()).run(None, feed)  # type: ignore[no-untyped-call]
        assert [[tensor.name for tensor in call.plan.outputs] for call in again.calls()] == [
            ["probabilities"],
            ["label"],
            ["label", "probabilities"],
            ["label", "probabilities"],
        ]
    finally:
        again.undo()
        again.recorder.close()


def test_contexts_are_read_by_another_function_from_the_next_round_or_new_session_on(watched: Watched) -> None:
    first = ort.InferenceSession(models.classifier())
    first.run(None, FEED)
    watched.read = lambda _: "more"
    first.run(None, FEED)
    watched.recorder.renew_context()
    first.run(None, FEED)
    watched.read = lambda _: "most"
    second = ort.InferenceSession(models.classifier())
    second.run(None, FEED)
    first.run(None, FEED)
    assert [call.context for call in watched.calls()] == ["context", "context", "more", "most", "most"]
    assert len(watched.recorder.sessions()) == 2


def test_sessions_are_freed(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    session.run(None, FEED)
    gone = weakref.ref(session)
    assert len(watched.recorder.sessions()) == 1
    del session
    gc.collect()
    assert gone() is None
    assert list(watched.recorder.sessions()) == []


def test_lists_and_large_arrays(watched: Watched) -> None:
    session = ort.InferenceSession(models.classifier())
    session.run(None, {"input": [[1.0] * 10, [2.0] * 10]})
    session.run(None, {"input": np.ones((1000, 10), np.float32)})
    small, large = watched.calls()
    (few,), (many,) = copies(small.inputs), copies(large.inputs)
    assert isinstance(few, tuple)
    assert isinstance(many, tuple)
    assert (few[0], many[0]) == ((2, 10), (1000, 10))
    assert 500 < len(many[1]) <= 1024
    assert len(large.outputs) == 16_000


def test_loads_are_noted_failures_too(watched: Watched) -> None:
    ort.InferenceSession(models.classifier())
    with pytest.raises(Exception, match=r"NO_SUCHFILE|doesn't exist"):
        ort.InferenceSession("/nowhere/missing.onnx")
    good, bad = watched.loads
    assert (good.session is not None, good.error_type, bad.path, bad.error_type) == (
        True, None, "/nowhere/missing.onnx", "NoSuchFile",
    )  # fmt: skip
    assert good.duration_s is not None
    assert good.duration_s > 0


def test_uninstrument_below_a_foreign_patch_is_a_pass_through() -> None:
    bare = SESSION.run
    found = Watched()
    ours = SESSION.run
    seen = []

    def foreign(self, output_names, input_feed, run_options=None):  # type: ignore[no-untyped-def]
        seen.append(output_names)
        return ours(self, output_names, input_feed, run_options)

    SESSION.run = foreign
    try:
        session = ort.InferenceSession(models.classifier())
        session.run(None, FEED)
        assert len(found.calls()) == 1
        assert [name for name, is_undone in found.undo().items() if not is_undone] == ["run"]
        assert SESSION.run is foreign
        session.run(None, FEED)
        assert (len(found.calls()), len(seen)) == (0, 2)
        found.recorder.close()
        again = Watched()
        session.run(None, FEED)
        assert len(again.calls()) == 1
        assert set(again.undo().values()) == {True}
        assert SESSION.run is foreign
        again.recorder.close()
    finally:
        SESSION.run = bare


def test_a_foreign_patch_of_other_parameters_gets_its_own_arguments() -> None:
    bare = SESSION.run

    def foreign(self, names, feed):  # type: ignore[no-untyped-def]
        return bare(self, names, feed)

    SESSION.run = foreign
    try:
        found = Watched()
        session = ort.InferenceSession(models.classifier())
        assert session.run(None, FEED)[0].shape == (1, 4)
        assert session.run(names=None, feed=FEED)[0].shape == (1, 4)
        with pytest.raises(TypeError, match="positional"):
            session.run(None, FEED, None)
        assert [call.error_type for call in found.calls()] == [None, None, "TypeError"]
        assert set(found.undo().values()) == {True}
        found.recorder.close()
    finally:
        SESSION.run = bare
