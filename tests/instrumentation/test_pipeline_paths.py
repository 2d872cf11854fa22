"""Every run path and every event, from the host's call to the signal."""

from __future__ import annotations

import contextlib
import copy
import importlib
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

import otel_mlmon
from otel_mlmon.testing import Captured, capture
from tests.support import models
from tests.support.runs import RUNS, Waiting

SESSION = ort.capi.onnxruntime_inference_collection.Session
REFUSED = r"invalid dimensions|Got: 3"


def events(captured: Captured, name: str) -> list[dict[str, Any]]:
    captured.flush()
    return [dict(e.log_record.attributes or {}) for e in captured.events if e.log_record.event_name == name]


def points(captured: Captured, name: str, key: str = "ml.model.name") -> dict[str, Any]:
    """Data points of a metric by one of their attributes."""
    metric = captured.metrics().get(name)
    return {str((point.attributes or {})[key]): point for point in (metric.data.data_points if metric else ())}


def count(captured: Captured) -> int:
    return sum(point.count for point in points(captured, "ml.inference.duration").values())


@pytest.mark.parametrize("path", RUNS)
def test_a_span_of_every_path_in_the_trace_of_its_call(path: str) -> None:
    session = ort.InferenceSession(models.softmax(classes=3, name="iris"))
    with capture() as captured:
        with captured.tracer_provider.get_tracer("host").start_as_current_span("request") as parent:
            RUNS[path](session, np.array([[9, 0, 0]], np.float32))
        captured.flush()
        (span,) = [found for found in captured.spans if found.name == "predict iris"]
        assert span.attributes is not None
        assert span.attributes["ml.operation.name"] == path
        assert (span.attributes["ml.prediction.label"], span.attributes["ml.batch.size"]) == ("0", 1)
        assert span.parent is not None
        assert span.parent.span_id == parent.get_span_context().span_id


@pytest.mark.parametrize("path", RUNS)
def test_a_failed_call_is_an_event_with_its_class_and_trace_and_without_its_message(path: str) -> None:
    session = ort.InferenceSession(models.classifier())
    with capture() as captured:
        tracer = captured.tracer_provider.get_tracer("host")
        with tracer.start_as_current_span("request"), pytest.raises(Exception, match=REFUSED) as caught:
            RUNS[path](session, np.ones((1, 3), np.float32))
        captured.flush()
        (span,) = [found for found in captured.spans if found.name == "predict tiny"]
        (event,) = [
            e.log_record for e in captured.events if e.log_record.event_name == "ml.inference.exception"
        ]  # fmt: skip
        error = "RuntimeError" if path == "run_async" else type(caught.value).__qualname__
        assert dict(event.attributes or {}) == {
            "ml.model.name": "tiny", "ml.model.version": models.digest_version(models.classifier()),
            "ml.operation.name": path, "exception.type": error,
            "ml.sampling.reason": "failed", "ml.sampling.probability": 1.0,
        }  # fmt: skip
        assert (event.severity_text, event.body) == ("ERROR", None)
        assert span.context is not None
        assert (event.trace_id, event.span_id) == (span.context.trace_id, span.context.span_id)
        assert span.attributes is not None
        assert span.attributes["error.type"] == error


def test_exception_events_are_limited() -> None:
    session = ort.InferenceSession(models.classifier())
    with capture(events_per_second=2.0, flush_interval_s=60.0) as captured:
        for _ in range(30):
            with pytest.raises(Exception, match=REFUSED):
                RUNS["run"](session, np.ones((1, 3), np.float32))
        assert 2 <= len(events(captured, "ml.inference.exception")) <= 6


def test_a_model_made_before_announces_itself_at_its_first_call_and_one_made_after_at_once(tmp_path: Path) -> None:
    path = tmp_path / "fraud.onnx"
    path.write_bytes(models.softmax(name="any", metadata={"otel_mlmon.reference": '{"a": 1}', "version": "3"}))
    early, idle = (ort.InferenceSession(models.softmax(name=name)) for name in ("early", "idle"))
    with capture() as captured:
        assert events(captured, "ml.model.loaded") == []
        late = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        (said,) = events(captured, "ml.model.loaded")
        assert said.pop("ml.model.load.duration") > 0
        assert len(said.pop("ml.model.file.sha256")) == 64
        assert said == {
            "ml.model.name": "fraud",
            "ml.model.version": "3",
            "ml.model.reference": '{"a": 1}',
            "ml.execution_provider": "CPUExecutionProvider",
            "ml.execution_providers": "CPUExecutionProvider",
            "ml.execution_providers.requested": "CPUExecutionProvider",
            "ml.runtime.name": "onnxruntime",
            "ml.runtime.version": ort.__version__,
            "ml.output.kinds": "probabilities: probabilities (normalised along its classes, by its operator Softmax)",
        }
        for session in (early, late, early):
            session.run(None, {"input": np.zeros((1, 4), np.float32)})
        assert [found["ml.model.name"] for found in events(captured, "ml.model.loaded")] == ["fraud", "early"]
        assert "ml.model.load.duration" not in events(captured, "ml.model.loaded")[1]
        assert str(tmp_path) not in str([event.log_record for event in captured.events])
        ((model, load),) = points(captured, "ml.model.load.duration").items()
        assert (model, load.attributes["ml.model.version"], load.count) == ("fraud", "3", 1)
        active = points(captured, "ml.sessions.active")
        assert {model: point.value for model, point in active.items()} == {"fraud": 1, "early": 1}
        del late, session
        active = points(captured, "ml.sessions.active")
        assert {model: point.value for model, point in active.items()} == {"early": 1}
    del idle


def test_a_session_first_seen_when_its_providers_change_is_told_once() -> None:
    early = ort.InferenceSession(models.softmax(name="early"))
    with capture() as captured:
        for _ in range(2):
            early.set_providers(["CPUExecutionProvider"])
            early.run(None, {"input": np.zeros((1, 4), np.float32)})
        assert [found["ml.model.name"] for found in events(captured, "ml.model.loaded")] == ["early"]
        assert points(captured, "ml.model.load.duration") == {}


def test_a_load_in_a_trace_belongs_to_it_and_a_suppressed_one_is_not_told() -> None:
    with capture() as captured:
        with suppress_instrumentation():
            quiet = ort.InferenceSession(models.softmax(name="quiet"))
            quiet.run(None, {"input": np.zeros((1, 4), np.float32)})
        with captured.tracer_provider.get_tracer("host").start_as_current_span("start") as span:
            ort.InferenceSession(models.softmax(name="loud"))
        captured.flush()
        (record,) = [event.log_record for event in captured.events]
        assert (record.event_name, record.trace_id) == ("ml.model.loaded", span.get_span_context().trace_id)
        assert set(captured.metrics()) & {"ml.model.load.duration", "ml.inference.duration"} == {
            "ml.model.load.duration"
        }
        quiet.run(None, {"input": np.zeros((1, 4), np.float32)})
        assert [found["ml.model.name"] for found in events(captured, "ml.model.loaded")] == ["loud", "quiet"]


def test_a_session_that_is_not_made_is_a_failed_load_and_no_event(tmp_path: Path) -> None:
    with capture() as captured:
        with pytest.raises(Exception, match=r"NO_SUCHFILE|doesn't exist"):
            ort.InferenceSession(str(tmp_path / "missing.onnx"))
        (point,) = captured.metrics()["ml.model.load.duration"].data.data_points
        assert dict(point.attributes or {}) == {"ml.model.name": "missing", "error.type": "NoSuchFile"}
        assert events(captured, "ml.model.loaded") == []


def test_a_fallback_at_creation_and_within_a_call_is_an_event_each_and_a_log_line_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, *_: object) -> None:
            raise ort.capi.onnxruntime_pybind11_state.EPFail("gone")

    with capture() as captured:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2):
                ort.InferenceSession(
                    models.softmax(name="iris"), providers=[("CUDAExecutionProvider", {}), "CPUExecutionProvider"]
                )
        session = ort.InferenceSession(
            models.softmax(name="iris"), providers=["AzureExecutionProvider", "CPUExecutionProvider"]
        )
        session._sess = Failing(session._sess)
        session.run(None, {"input": np.zeros((1, 4), np.float32)})
        session.set_providers(["CPUExecutionProvider"])
        told = events(captured, "ml.execution_provider.fallback")
        assert [found["ml.execution_providers.requested"].split(",")[0] for found in told] == [
            "CUDAExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider",
        ]  # fmt: skip
        assert {found["ml.execution_provider"] for found in told} == {"CPUExecutionProvider"}
        assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
            "Model iris was asked to run on CUDAExecutionProvider and runs on CPUExecutionProvider.",
            "Model iris was asked to run on AzureExecutionProvider and runs on CPUExecutionProvider.",
        ]
        (span,) = captured.spans
        assert span.attributes is not None
        assert span.attributes["ml.execution_provider"] == "CPUExecutionProvider"


@contextlib.contextmanager
def foreign(seen: list[str]) -> Iterator[Callable[[], None]]:
    """Somebody else's patches of every run path, put on by the function given; whatever is left is taken off."""
    bare = {name: SESSION.__dict__[name] for name in RUNS}

    def put_on() -> None:
        for name in RUNS:
            below = SESSION.__dict__[name]

            def method(self: Any, *args: Any, _name: str = name, _below: Any = below, **keywords: Any) -> Any:
                seen.append(_name)
                return _below(self, *args, **keywords)

            setattr(SESSION, name, method)

    try:
        yield put_on
    finally:
        for name, method in bare.items():
            setattr(SESSION, name, method)


@pytest.mark.parametrize("order", list(itertools.product(["below", "above", "both"], [False, True])), ids=str)
def test_with_patches_of_others_every_call_is_counted_once_and_their_patches_stay(order: tuple[str, bool]) -> None:
    where, is_taken_off_first = order
    seen: list[str] = []
    rows = np.ones((1, 10), np.float32)
    session = ort.InferenceSession(models.classifier())
    bare = dict(SESSION.__dict__)
    with foreign(seen) as put_on:
        if where in {"below", "both"}:
            put_on()
        with capture() as captured:
            ours = {name: SESSION.__dict__[name] for name in RUNS}
            if where in {"above", "both"}:
                put_on()
            for path in RUNS.values():
                path(session, rows)
            times = 2 if where == "both" else 1
            assert seen == [name for name in RUNS for _ in range(times)]
            assert count(captured) == 5
            if is_taken_off_first:
                for name in RUNS:
                    setattr(SESSION, name, ours[name])
        seen.clear()
        for path in RUNS.values():
            path(session, rows)
        left = (where == "both") + (where == "below" or (where != "below" and not is_taken_off_first))
        assert seen == [name for name in RUNS for _ in range(left)]
        with capture() as again:
            for path in RUNS.values():
                path(session, rows)
            assert count(again) == 5
    assert {name: SESSION.__dict__[name] for name in RUNS} == {name: bare[name] for name in RUNS}


def test_instrumented_twice_and_again_counts_once() -> None:
    session = ort.InferenceSession(models.classifier())
    bare = dict(SESSION.__dict__)
    for _ in range(3):
        with capture() as captured:
            otel_mlmon.instrument()
            for path in RUNS.values():
                path(session, np.ones((1, 10), np.float32))
            assert count(captured) == 5
        assert dict(SESSION.__dict__) == bare


def test_nested_and_inherited_ways_count_once() -> None:
    class Own(ort.InferenceSession):  # type: ignore[misc]
        def run(self, output_names, input_feed, run_options=None):  # type: ignore[no-untyped-def]
            return super().run(output_names, input_feed, run_options)

        def run_with_iobinding(self, iobinding, run_options=None):  # type: ignore[no-untyped-def]
            return super().run_with_iobinding(iobinding, run_options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = importlib.import_module("onnxruntime.backend")
    with capture() as captured:
        own = Own(models.classifier())
        prepared = backend.prepare(own)
        prepared.run([np.ones((1, 10), np.float32)])
        assert count(captured) == 1
        for path in RUNS.values():
            path(own, np.ones((1, 10), np.float32))
        assert count(captured) == 6
        for path in RUNS.values():
            path(copy.copy(own), np.ones((1, 10), np.float32))
        assert count(captured) == 11


def test_methods_bound_before_are_not_covered() -> None:
    session = ort.InferenceSession(models.classifier())
    bound = session.run
    with capture() as captured:
        bound(None, {"input": np.ones((1, 10), np.float32)})
        assert count(captured) == 0


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), paths=st.lists(st.sampled_from(list(RUNS)), min_size=1, max_size=12))
def test_what_is_measured_is_what_was_there_whatever_becomes_of_the_buffers(seed: int, paths: list[str]) -> None:
    rng = np.random.default_rng(seed)
    session = ort.InferenceSession(models.softmax(classes=3, name="iris"))
    buffer = np.zeros((2, 3), np.float32)
    labels, confidences, feature = np.zeros(3, int), list[float](), list[float]()
    with capture(flush_interval_s=60.0) as captured:
        for path in paths:
            buffer[:] = rng.normal(size=(2, 3))
            made = RUNS[path](session, buffer)[0]
            labels += np.bincount(made.argmax(axis=1), minlength=3)
            confidences.extend(made.max(axis=1).tolist())
            if path not in {"run_with_iobinding", "run_with_ortvaluevector"}:
                feature.extend(buffer[:, 0].tolist())
            made[:] = -1
            buffer[:] = 1e9
        counted = points(captured, "ml.predictions", "ml.prediction.label")
        assert {label: point.value for label, point in counted.items()} == {
            str(label): n for label, n in enumerate(labels.tolist()) if n
        }
        confidence = points(captured, "ml.prediction.confidence")["iris"]
        assert (confidence.count, confidence.min, confidence.max) == (
            len(confidences), min(confidences), max(confidences),
        )  # fmt: skip
        columns = points(captured, "ml.input.feature", "ml.feature.name")
        assert ("f0" in columns) == bool(feature)
        if feature:
            column = columns["f0"]
            assert column.count == len(feature)
            tolerance = (2**2.0**-column.scale - 1) / 2 * float(np.abs(feature).sum()) + 1e-9
            assert column.sum == pytest.approx(float(np.sum(feature)), abs=tolerance)


def test_a_trace_is_current_where_the_host_set_it_and_not_in_the_callback() -> None:
    session = ort.InferenceSession(models.classifier())
    waiting = Waiting()
    seen: list[Any] = []

    def callback(*arguments: Any) -> None:
        seen.append(trace.get_current_span())
        waiting(*arguments)

    with capture() as captured:
        with captured.tracer_provider.get_tracer("host").start_as_current_span("request"):
            session.run_async(None, {"input": np.ones((1, 10), np.float32)}, callback, None)
            waiting.wait()
        assert seen == [trace.INVALID_SPAN]
