"""What the host sees is the same with and without us: objects, exceptions, arrays, whatever fails on our side."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_mlmon.instrumentation.aggregate.aggregator import PredictionAggregator
from otel_mlmon.instrumentation.decode.decoder import TensorDecoder
from otel_mlmon.instrumentation.decode.model_loading import ModelLoadTracker
from otel_mlmon.instrumentation.export.call_sampler import CallSampler, SlowCallDetector
from otel_mlmon.instrumentation.export.events import EventWriter
from otel_mlmon.instrumentation.export.metrics import MetricWriter
from otel_mlmon.instrumentation.export.spans import SpanWriter
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.onnxruntime.async_calls import AsyncCopier
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder
from otel_mlmon.instrumentation.status import Status
from otel_mlmon.testing import capture
from tests.support import models
from tests.support.runs import RUNS

SESSION = ort.capi.onnxruntime_inference_collection.Session
SLOW = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
FAULTS = st.sampled_from([RuntimeError, KeyError, MemoryError, RecursionError, UnicodeError, AttributeError, OSError])
HOSTS = st.sampled_from([ValueError, KeyError, AttributeError, StopIteration, KeyboardInterrupt, SystemExit])
STAGES = [
    (CallRecorder, "_describe_session"), (CallRecorder, "_find_copiers"), (CallRecorder, "attach_run_copier"),
    (CallRecorder, "attach_value_copier"), (CallRecorder, "attach_async_copier"),
    (AsyncCopier, "_record_first_call"), (CallQueue, "offer"),
    (ModelLoadTracker, "take_queued_loads"), (ModelLoadTracker, "announce_session"),
    (ModelLoadTracker, "take_load_durations"), (ModelLoadTracker, "take_load_announcements"),
    (TensorDecoder, "__init__"), (TensorDecoder, "decode_batch"),
    (PredictionAggregator, "add_predictions"), (PredictionAggregator, "take_snapshots"),
    (MetricWriter, "write_snapshot"), (MetricWriter, "write_model_loads"), (MetricWriter, "add_exemplars"),
    (SpanWriter, "write_spans"),
    (EventWriter, "write_prediction_events"), (EventWriter, "write_exception_events"),
    (EventWriter, "write_model_event"),
    (CallSampler, "choose_calls"), (SlowCallDetector, "detect_slow_calls"),
]  # fmt: skip


def accounted(status: Status) -> int:
    return status.recorded_calls + status.suppressed_calls + sum(status.dropped_calls.values()) + status.waiting_calls


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def stub(method: Callable[..., Any], seen: list[Any], outcome: object) -> Callable[..., Any]:
    """A method of the same parameters that notes its arguments, and returns or raises `outcome`."""
    signature = inspect.signature(method)

    def bare(*arguments: Any, **keywords: Any) -> Any:
        bound = signature.bind(*arguments, **keywords)
        bound.apply_defaults()
        seen.append(list(bound.arguments.values())[1:])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    bare.__signature__ = signature  # type: ignore[attr-defined]
    return bare


@pytest.mark.guarded
@SLOW
@given(data=st.data(), name=st.sampled_from([*RUNS, "set_providers"]), fails=st.booleans(), switched_off=st.booleans())
def test_arguments_results_and_exceptions_are_the_very_objects(
    data: st.DataObject, name: str, fails: bool, switched_off: bool
) -> None:
    method = SESSION.__dict__[name]
    outcome: object = data.draw(HOSTS)("mine") if fails else data.draw(
        st.sampled_from([None, object(), [], [object()], {"a": 1}, [np.zeros(3, dtype=object)]])
    )  # fmt: skip
    count = len(inspect.signature(method).parameters) - 1
    values = data.draw(st.lists(st.sampled_from([None, object(), [], {}, {"input": 3}, "x"]), min_size=count,
                                max_size=count))  # fmt: skip
    by_position = data.draw(st.integers(0, count))
    names = list(inspect.signature(method).parameters)[1:]
    keywords = dict(zip(names[by_position:], values[by_position:], strict=True))
    session, seen = ort.InferenceSession(models.classifier()), list[Any]()
    with replaced(SESSION, name, stub(method, seen, outcome)), capture() as captured:
        if switched_off:
            captured.handle.uninstrument()
        caught: BaseException | None = None
        result: object = None
        try:
            result = getattr(session, name)(*values[:by_position], **keywords)
        except BaseException as error:  # noqa: BLE001 - any of the host's
            caught = error
        assert len(seen) == 1
        assert all(got is sent for got, sent in zip(seen[0], values, strict=True))
        if isinstance(outcome, BaseException):
            assert caught is outcome
            assert (outcome.__cause__, outcome.__context__, getattr(outcome, "__notes__", [])) == (None, None, [])
        else:
            assert caught is None
            assert result is outcome


@SLOW
@given(
    path=st.sampled_from(list(RUNS)),
    rows=st.integers(0, 30),
    seed=st.integers(0, 2**32 - 1),
    model=st.sampled_from([models.classifier(), models.labelled(), models.regression()]),
)
def test_arrays_are_the_same_bit_for_bit(path: str, rows: int, seed: int, model: bytes) -> None:
    session = ort.InferenceSession(model)
    width = session.get_inputs()[0].shape[1]
    given_rows = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    before = given_rows.tobytes()
    bare = RUNS[path](session, given_rows)
    with capture() as captured:
        ours = RUNS[path](session, given_rows)
        captured.flush()
        assert accounted(captured.handle.status()) == captured.handle.status().recorded_calls == 1
    assert given_rows.tobytes() == before
    assert [(array.dtype, array.shape, array.tobytes()) for array in ours] == [
        (array.dtype, array.shape, array.tobytes()) for array in bare
    ]
    assert all(array.flags.writeable for array in ours)


@pytest.mark.guarded
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_faults_in_every_stage_change_nothing_for_the_host(data: st.DataObject) -> None:
    broken = data.draw(st.lists(st.sampled_from(STAGES), min_size=1, max_size=4, unique=True), label="broken")
    every = data.draw(st.integers(1, 3), label="fails every")
    error = data.draw(FAULTS, label="error")
    calls = data.draw(st.lists(st.tuples(st.sampled_from(list(RUNS)), st.booleans()), min_size=1, max_size=8))
    early = ort.InferenceSession(models.labelled())
    expected = {name: [array.tobytes() for array in run(early, np.eye(3, dtype=np.float32))]
                for name, run in RUNS.items()}  # fmt: skip
    times = iter(range(10**9))

    def faulty(real: Callable[..., Any]) -> Callable[..., Any]:
        def method(*arguments: Any, **keywords: Any) -> Any:
            if next(times) % every == 0:
                raise error("ours")
            return real(*arguments, **keywords)

        return method

    with contextlib.ExitStack() as stack:
        captured = stack.enter_context(capture())
        for owner, name in broken:
            stack.enter_context(replaced(owner, name, faulty(owner.__dict__[name])))
        late = ort.InferenceSession(models.labelled())
        for path, is_good in calls:
            session = late if is_good else early
            assert [array.tobytes() for array in RUNS[path](session, np.eye(3, dtype=np.float32))] == expected[path]
            with pytest.raises(Exception, match=r"invalid dimensions|Got: 2"):
                RUNS[path](session, np.ones((1, 2), np.float32))
        captured.flush()
        captured.metrics()
        assert accounted(captured.handle.status()) == 2 * len(calls)


def work(count: int, session: Any, seed: int) -> None:
    """`count` calls by the ways that do not wait, in an order of the seed's."""
    rng = np.random.default_rng(seed)
    ways = [run for name, run in RUNS.items() if name != "run_async"]
    rows = np.ones((1, 10), np.float32)
    for chosen in rng.integers(0, 10, count).tolist():
        if chosen == 0:
            with suppress_instrumentation():
                RUNS["run"](session, rows)
        elif chosen == 1:
            with contextlib.suppress(Exception):
                session.run(None, {"input": np.ones((1, 3), np.float32)})
        elif chosen < 6:
            ways[chosen % len(ways)](session, rows)
        else:
            session.run(None, {"input": rows})


def in_threads(threads: int, count: int, session: Any) -> None:
    running = [threading.Thread(target=work, args=(count, session, seed)) for seed in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=[pytest.mark.e2e, pytest.mark.timeout(600)])])
def test_calls_of_eight_threads_are_recorded_suppressed_or_dropped(count: int) -> None:
    session = ort.InferenceSession(models.classifier())
    with capture(events_per_second=0.0, spans_per_second=0.0) as captured:
        in_threads(8, count, session)
        captured.flush()
        status = captured.handle.status()
        assert status.waiting_calls == 0
        assert accounted(status) == 8 * count
        assert status.suppressed_calls > 0


def test_a_full_buffer_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ort.InferenceSession(models.classifier())
    may_go_on, decode = threading.Event(), TensorDecoder.decode_batch

    def stuck(self: TensorDecoder, batch: Any) -> Any:
        assert may_go_on.wait(30)
        return decode(self, batch)

    monkeypatch.setattr(TensorDecoder, "decode_batch", stuck)
    with capture(buffer_records=50, events_per_second=0.0, spans_per_second=0.0) as captured:
        in_threads(8, 200, session)
        may_go_on.set()
        captured.flush()
        status = captured.handle.status()
        assert status.dropped_calls["buffer_full"] > 1000
        assert set(status.dropped_calls) == {"buffer_full"}
        assert (accounted(status), status.waiting_calls) == (1600, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_accounts_for_its_own_calls_and_announces_its_models() -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(models.classifier(), options)
    with capture() as captured:
        work(30, session, 0)
        captured.flush()
        reading, writing = os.pipe()
        # Sessions of other tests that are garbage would wait, once collected, for threads that a child does not have.
        gc.collect()
        gc.freeze()
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(60, exit=True)  # says where, should a lock of the parent hold it
            before = len(captured.events)
            work(20, session, 1)
            captured.flush()
            told = [found.log_record.event_name for found in captured.events[before:]]
            os.write(writing, f"{accounted(captured.handle.status())} {told.count('ml.model.loaded')}".encode())
            os._exit(0)
        gc.unfreeze()
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as stream:
            assert stream.read() == "20 1"
        work(10, session, 2)
        captured.flush()
        assert accounted(captured.handle.status()) == 40
        names = [found.log_record.event_name for found in captured.events]
        assert names.count("ml.model.loaded") == 1
