"""What holds for every runtime: those of the package, and one that a package of somebody else's adds."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import sentry_sdk
from opentelemetry.instrumentation.utils import suppress_instrumentation

import otel_mlmon
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.runtime import RUNTIMES
from otel_mlmon.testing import Captured, capture
from tests.support import models
from tests.support.sentry_endpoint import endpoint, initialise, no_sentry

CLASSES = ("ant", "bee", "cow")
OPTIONS: dict[str, Any] = {
    "model_name": "classifier",
    "models": {"classifier": otel_mlmon.ModelOptions(version="3", labels=CLASSES, output_kind="probabilities")},
}
ROWS = np.array([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]], np.float32)
WRONG = np.ones((1, 2), np.float32)

TOY_LIBRARY = """
import numpy as np

class Model:
    def predict(self, rows):
        if rows.shape[1] != 3:
            raise ValueError("three columns are expected")
        odds = np.exp(rows)
        return [odds / odds.sum(axis=1, keepdims=True)]
"""

TOY_RUNTIME = """
import functools
import time

import toy_library
from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.runtime.call import (DROP_FAULT, RECORD_BYTES, Plan, SessionInfo, Tensor)

INPUT = Tensor(name="input", layout="rows", dtype="float32", row_shape=(3,))
OUTPUT = Tensor(name="probabilities", layout="rows", dtype="float32", row_shape=(3,))


class Instrumentation:
    methods = ("predict",)

    def __init__(self, capture):
        self.capture, self.plans, self.original = capture, {}, toy_library.Model.predict
        self.renew_context()
        toy_library.Model.predict = replace(self.original, self.record)

    def record(self, model, started_ns, ended_ns, inputs, outputs, error_type):
        is_recorded = False
        with guard("toy"):
            plan = self.plans.get(id(model)) or self.add_plan(model)
            call = (plan, started_ns, ended_ns, self.context(None), inputs, outputs, error_type)
            self.capture.sink.offer(call, RECORD_BYTES + len(inputs) + len(outputs))
            is_recorded = True
        if not is_recorded:
            self.capture.sink.drop(DROP_FAULT)

    def add_plan(self, model):
        session = SessionInfo(
            model_name=self.capture.model_name(model), path="", graph_name="", metadata={}, provider="",
            runtime_name="toy", runtime_version="1.0",
        )
        plan = self.plans[id(model)] = Plan(session=session, operation="predict", inputs=(INPUT,), outputs=(OUTPUT,))
        return plan

    def sessions(self):
        return [plan.session for plan in self.plans.values()]

    def session_of(self, model):
        return plan.session if (plan := self.plans.get(id(model))) else None

    def renew_context(self):
        self.context = self.capture.context_reader()

    def undo(self):
        toy_library.Model.predict = self.original
        return True


def replace(original, record):
    @functools.wraps(original)
    def predict(self, rows):
        started_ns = time.perf_counter_ns()
        try:
            result = original(self, rows)
        except BaseException as error:
            record(self, started_ns, time.perf_counter_ns(), (), (), type(error).__qualname__)
            raise
        record(self, started_ns, time.perf_counter_ns(), rows.tobytes(), result[0].tobytes(), None)
        return result

    return predict


class ToyRuntime:
    def instrument(self, capture):
        return Instrumentation(capture)


RUNTIME = ToyRuntime()
"""

METADATA = "Metadata-Version: 2.1\nName: toy-runtime\nVersion: 1.0\n"
ENTRY_POINTS = "[otel_mlmon.runtimes]\ntoy = toy_runtime:RUNTIME\n"


@dataclass(frozen=True)
class Subject:
    """A model of one runtime, as its host calls it: rows of three odds in, probabilities out."""

    predict: Callable[[Any], list[Any]]
    patched: Callable[[], Any]
    """What the runtime's patched methods are now."""
    operation: str
    attributes: dict[str, str]
    """What its spans say of the runtime besides the version."""


def onnxruntime_subject() -> Subject:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(models.softmax(classes=3), options)
    owner = ort.capi.onnxruntime_inference_collection.Session
    attributes = {"ml.runtime.name": "onnxruntime", "ml.execution_provider": "CPUExecutionProvider"}
    return Subject(
        lambda rows: list(session.run(None, {"input": rows})), lambda: owner.__dict__["run"], "run", attributes
    )


def manual_subject() -> Subject:
    def predict(rows: Any) -> list[Any]:
        with otel_mlmon.observe("classifier", runtime="numpy") as prediction:
            if rows.shape[1] != 3:
                raise ValueError("three columns are expected")
            odds = np.exp(rows)
            prediction.scores = odds / odds.sum(axis=1, keepdims=True)
            prediction.features = {f"f{index}": rows[:, index] for index in range(3)}
            return [prediction.scores]

    return Subject(predict, lambda: None, "observe", {"ml.runtime.name": "numpy"})


def toy_subject() -> Subject:
    import toy_library

    model = toy_library.Model()
    attributes = {"ml.runtime.name": "toy"}
    return Subject(lambda rows: list(model.predict(rows)), lambda: toy_library.Model.predict, "predict", attributes)


@pytest.fixture
def _toy_runtime_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "toy_runtime-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "toy_library.py").write_text(TOY_LIBRARY)
    (tmp_path / "toy_runtime.py").write_text(TOY_RUNTIME)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("toy_library", "toy_runtime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # A process looks for packages once.
    monkeypatch.setattr(RUNTIMES, "_entry_points", None)
    monkeypatch.setattr(RUNTIMES, "_parts", {})


@pytest.fixture(params=["onnxruntime", "manual", "toy"])
def subject(request: pytest.FixtureRequest, _toy_runtime_installed: None) -> Iterator[Subject]:
    instance = {"onnxruntime": onnxruntime_subject, "manual": manual_subject, "toy": toy_subject}[request.param]()
    before = instance.patched()
    yield instance
    assert instance.patched() is before


def accounted(captured: Captured) -> int:
    status = captured.handle.status()
    return status.recorded_calls + status.suppressed_calls + sum(status.dropped_calls.values()) + status.waiting_calls


def points(captured: Captured) -> dict[str, dict[tuple[str, ...], float]]:
    """Of each metric the count or value, by its attributes without the model's."""
    own = {"ml.model.name", "ml.model.version"}
    return {
        name: {
            tuple(str(value) for key, value in (point.attributes or {}).items() if key not in own): getattr(
                point, "count", getattr(point, "value", 0)
            )
            for point in metric.data.data_points
        }
        for name, metric in captured.metrics().items()
    }


@pytest.mark.usefixtures("_toy_runtime_installed")
def test_every_runtime_is_found_by_name() -> None:
    assert RUNTIMES.list_names() == ("onnxruntime", "manual", "toy")
    with capture() as captured:
        methods = captured.handle.status().patched_methods
    assert (list(methods), methods["manual"], methods["toy"]) == (["onnxruntime", "manual", "toy"], (), ("predict",))


def test_the_same_calls_make_the_same_signals(subject: Subject) -> None:
    with capture(**OPTIONS) as captured:
        subject.predict(ROWS)
        subject.predict(ROWS[:1])
        with contextlib.suppress(Exception):
            subject.predict(WRONG)
        captured.flush()
        metrics = points(captured)
        two, one, failed = captured.spans
        events = [event.log_record for event in captured.events]
    error = str((failed.attributes or {})["error.type"])
    assert metrics == {
        "ml.inference.duration": {(): 2, (error,): 1},
        "ml.inference.batch.size": {(): 2},
        "ml.predictions": {("ant",): 2, ("bee",): 1},
        "ml.prediction.confidence": {(): 3},
        "ml.input.feature": {("f0",): 3, ("f1",): 3, ("f2",): 3},
        "ml.input.samples": {(): 3},
        "ml.sessions.active": {(): 1},
    }
    for span in (two, one, failed):
        assert (span.name, span.kind.name) == ("predict classifier", "INTERNAL")
        attributes = dict(span.attributes or {})
        assert attributes.pop("ml.inference.duration") > 0  # type: ignore[operator]
        attributes.pop("ml.runtime.version")
        confidences = [
            attributes.pop(name, None) for name in ("ml.prediction.confidence", "ml.prediction.confidence.min")
        ]
        own: dict[int, dict[str, Any]] = {
            id(two): {"ml.batch.size": 2},
            id(one): {"ml.batch.size": 1, "ml.prediction.label": "ant"},
            id(failed): {"error.type": error},
        }
        assert attributes == {
            "ml.model.name": "classifier",
            "ml.model.version": "3",
            "ml.operation.name": subject.operation,
            "ml.sampling.reason": "failed" if span is failed else "share",
            "ml.sampling.probability": 1.0,
            **subject.attributes,
            **own[id(span)],
        }
        assert [value is not None for value in confidences] == [span is not failed, span is two]
    assert (failed.status.status_code.name, one.status.status_code.name) == ("ERROR", "UNSET")
    names = ["ml.model.loaded", "ml.prediction", "ml.prediction", "ml.prediction", "ml.inference.exception"]
    assert sorted(str(event.event_name) for event in events) == sorted(names)


def test_sentry_gets_the_same_spans(subject: Subject) -> None:
    with no_sentry(), endpoint() as sentry:
        initialise(sentry, traces_sample_rate=1.0)
        with capture(**OPTIONS) as captured:
            subject.predict(ROWS[:1])
            captured.flush()  # the model's file is read: the end of the transaction waits for nothing
            with sentry_sdk.start_transaction(name="request"):
                subject.predict(ROWS[:1])
                with contextlib.suppress(Exception):
                    subject.predict(WRONG)
            captured.flush()
            sentry_sdk.flush()
            (request,) = sentry.wait("transaction", 1, where=lambda event: event["transaction"] == "request")
    good, bad = [span for span in request["spans"] if span["op"] == "ml.predict"]
    assert (good["description"], good["status"], bad["status"]) == ("predict classifier", "ok", "internal_error")
    expected = {
        "ml.model.name": "classifier",
        "ml.model.version": "3",
        "ml.operation.name": subject.operation,
        "ml.prediction.label": "ant",
        "ml.batch.size": 1,
        **subject.attributes,
    }
    assert {name: good["data"].get(name) for name in expected} == expected


def test_results_and_exceptions_are_the_hosts(subject: Subject) -> None:
    def outcome(rows: Any) -> object:
        try:
            return [
                (array.dtype, array.shape, array.tobytes(), array.flags.writeable) for array in subject.predict(rows)
            ]
        except Exception as error:  # noqa: BLE001 - any of the host's
            return type(error), str(error), error.__cause__, error.__context__

    bare = [outcome(rows) for rows in (ROWS, WRONG, ROWS[:0])]
    with capture(**OPTIONS) as captured:
        assert [outcome(rows) for rows in (ROWS, WRONG, ROWS[:0])] == bare
        captured.flush()
        assert captured.handle.status().recorded_calls == 3


def test_undone_nothing_is_recorded_and_it_can_be_done_again(subject: Subject) -> None:
    with capture(**OPTIONS) as captured:
        subject.predict(ROWS)
        captured.handle.uninstrument()
        subject.predict(ROWS)
        assert accounted(captured) == 1
    with capture(**OPTIONS) as captured:
        subject.predict(ROWS)
        captured.flush()
        assert captured.handle.status().recorded_calls == 1


@pytest.mark.parametrize("buffer_records", [10, 16_384])
def test_every_call_of_many_threads_is_recorded_suppressed_or_dropped(subject: Subject, buffer_records: int) -> None:
    def work() -> None:
        for call in range(200):
            if call % 10 == 0:
                with suppress_instrumentation():
                    subject.predict(ROWS)
            else:
                with contextlib.suppress(Exception):
                    subject.predict(WRONG if call % 10 == 1 else ROWS)

    quiet = {"events_per_second": 0.0, "spans_per_second": 0.0, "buffer_records": buffer_records}
    with capture(**OPTIONS, **quiet) as captured:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        captured.flush()
        status = captured.handle.status()
        assert (accounted(captured), status.waiting_calls) == (1600, 0)
        assert set(status.dropped_calls) <= {"buffer_full"}
        if buffer_records > 1600:
            assert (status.recorded_calls, status.suppressed_calls) == (1440, 160)


@pytest.mark.guarded
def test_a_fault_of_ours_is_kept_from_the_host_and_counted(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    expected = [array.tobytes() for array in subject.predict(ROWS)]
    monkeypatch.setattr(CallQueue, "offer", broken)
    with capture(**OPTIONS) as captured:
        for _ in range(3):
            assert [array.tobytes() for array in subject.predict(ROWS)] == expected
            with pytest.raises(Exception, match=r"three columns|invalid dimensions"):
                subject.predict(WRONG)
        assert captured.handle.status().dropped_calls == {"capture_failed": 6}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_accounts_for_its_own_calls(subject: Subject) -> None:
    with capture(**OPTIONS) as captured:
        for _ in range(5):
            subject.predict(ROWS)
        captured.flush()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            before = len(captured.events)
            for _ in range(3):
                subject.predict(ROWS)
            captured.flush()
            loaded = [event.log_record.event_name for event in captured.events[before:]].count("ml.model.loaded")
            os.write(writing, f"{accounted(captured)} {loaded}".encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as stream:
            assert stream.read() == "3 1"
        captured.flush()
        assert (accounted(captured), captured.handle.status().recorded_calls) == (5, 5)
