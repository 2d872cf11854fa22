"""How the graph of a session's model is read: later, and of what was loaded."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, Load, SessionInfo, estimate_call_bytes, read_file_stamp
from otel_mlmon.instrumentation.runtime.model_graph import ModelGraph
from otel_mlmon.instrumentation.runtime.onnxruntime import call_recorder
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder
from otel_mlmon.instrumentation.runtime.runtime import Capture
from tests.support import models

MISSING = ModelGraph(state="missing")


@pytest.fixture
def loads() -> deque[Load]:
    return deque()


@pytest.fixture
def recorder(loads: deque[Load]) -> CallRecorder:
    queue = CallQueue(
        fields=FIELDS, max_records=1000, max_bytes=10**9, attend=lambda _: None, weigh=estimate_call_bytes
    )
    capture = Capture(
        sink=queue,
        loads=loads,
        context_reader=lambda: lambda _: None,
        model_name=lambda _: "",
        has_output_function=lambda _: False,
    )
    return CallRecorder(capture, runtime_version="1")


def described(recorder: CallRecorder, loads: deque[Load], source: str | bytes) -> SessionInfo:
    """What is known of a session that was created of a file or of bytes, and ended."""
    stamp = read_file_stamp(source) if isinstance(source, str) else None
    session = ort.InferenceSession(source)
    recorder.record_session_load(session, source, None, duration_s=0.1, error=None, stamp=stamp)
    info = loads.pop().session
    assert info is not None
    assert info.graph.known is None
    return info


def test_bytes_are_read_though_their_session_ended(recorder: CallRecorder, loads: deque[Load]) -> None:
    content = models.softmax()
    graph = described(recorder, loads, content).graph
    assert (graph().state, graph().digest) == ("read", hashlib.sha256(content).hexdigest())
    assert graph.known is graph()


def test_large_bytes_are_not_held_beyond_their_session(
    recorder: CallRecorder, loads: deque[Load], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_recorder, "MAX_WHOLE_BYTES", 10)
    assert described(recorder, loads, models.softmax()).graph() == MISSING
    session = ort.InferenceSession(models.softmax())
    recorder.record_session_load(session, b"", None, duration_s=0.1, error=None)
    info = loads.pop().session
    assert info is not None
    assert info.graph().state == "read"


def test_a_file_is_read_where_it_was_although_the_process_moved(
    recorder: CallRecorder, loads: deque[Load], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "model.onnx").write_bytes(models.softmax())
    monkeypatch.chdir(tmp_path / "churn")
    info = described(recorder, loads, "model.onnx")
    monkeypatch.chdir(tmp_path)
    assert (info.graph().state, info.path) == ("read", str(tmp_path / "churn" / "model.onnx"))


@pytest.mark.parametrize("change", ["removed", "touched", "replaced"])
def test_a_file_that_changed_since_is_not_the_model(
    recorder: CallRecorder, loads: deque[Load], tmp_path: Path, change: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.softmax())
    info = described(recorder, loads, str(path))
    if change == "touched":
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    if change == "replaced":
        path.write_bytes(models.sigmoid())
    assert info.graph() == MISSING


def test_other_providers_do_not_read_the_file_again(recorder: CallRecorder, loads: deque[Load]) -> None:
    session = ort.InferenceSession(models.softmax())
    recorder.record_session_load(session, b"", None, duration_s=0.1, error=None)
    recorder.record_provider_change(session, ("CPUExecutionProvider",))
    first, second = (load.session for load in loads)
    assert first is not None
    assert second is not None
    assert (first is not second, first.graph is second.graph) == (True, True)


def test_a_session_first_seen_at_a_call_is_read_too(recorder: CallRecorder, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.softmax())
    session = ort.InferenceSession(path)
    feed = {session.get_inputs()[0].name: np.ones((1, 4), np.float32)}
    recorder.attach_run_copier(session, None, feed, session.run(None, feed))
    info = recorder.session_of(session)
    assert info is not None
    assert info.graph().state == "read"
