from __future__ import annotations

import dataclasses
from collections import deque
from pathlib import Path

import pytest

from otel_mlmon.instrumentation.decode import model_loading as loading
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity
from otel_mlmon.instrumentation.decode.model_loading import ModelLoad, ModelLoadTracker, describe_model_load
from otel_mlmon.instrumentation.runtime.call import UNKNOWN_VERSION, Load, SessionInfo
from otel_mlmon.instrumentation.runtime.model_graph import LazyModelGraph, ModelGraph
from otel_mlmon.instrumentation.settings import ModelOptions

INFO = SessionInfo(
    model_name="", path="", graph_name="iris", version=3, metadata={}, provider="CPUExecutionProvider",
    runtime_version="1.2", providers=("CPUExecutionProvider",),
)  # fmt: skip


def read(load: Load) -> ModelLoad:
    return describe_model_load(load, options=lambda _: ModelOptions(), findings=ModelFindings())


def graph_of(digest: str, *, is_complete: bool = True) -> LazyModelGraph:
    return LazyModelGraph(lambda: ModelGraph(state="read", digest=digest, is_digest_complete=is_complete))


def test_a_load_in_words() -> None:
    info = dataclasses.replace(INFO, graph=graph_of("ab"), metadata={"otel_mlmon.reference": "text"})
    requested = ("CUDAExecutionProvider", "CPUExecutionProvider")
    load = Load(info, "", 5, "context", duration_s=0.5, requested=requested)
    found = describe_model_load(load, options={"iris": ModelOptions(version="9")}.__getitem__, findings=ModelFindings())
    assert found == ModelLoad(
        model=ModelIdentity(name="iris", version="9", provider="CPUExecutionProvider", runtime_version="1.2"),
        is_new=True, ended_ns=5, context="context", duration_s=0.5, error_type=None,
        requested=requested, providers=("CPUExecutionProvider",),
        sha256="ab", reference="text", output_kinds="",
    )  # fmt: skip
    assert found.has_fallen_back


@pytest.mark.parametrize(
    ("requested", "got", "has_fallen_back"),
    [((), ("CPU",), False), (("CPU",), ("CPU",), False), (("CUDA", "CPU"), ("CUDA", "CPU"), False),
     (("CUDA", "CPU"), ("CPU",), True), (("TRT", "CUDA"), ("CUDA",), True), (("CUDA",), (), False)],
)  # fmt: skip
def test_a_fallback_is_another_first_provider(requested: tuple[str, ...], got: tuple[str, ...], has_fallen_back: bool) -> None:  # fmt: skip  # noqa: E501
    info = dataclasses.replace(INFO, providers=got)
    assert read(Load(info, "", 0, None, requested=requested)).has_fallen_back is has_fallen_back


def test_what_was_not_loaded_is_named_by_its_file_and_nothing_is_read(tmp_path: Path) -> None:
    found = read(Load(None, str(tmp_path / "fraud.onnx"), 0, None, duration_s=1.0, error_type="NoSuchFile"))
    assert (found.model, found.error_type, found.sha256, found.reference) == (
        ModelIdentity(name="fraud", version="", provider="", runtime_version=""), "NoSuchFile", "", "",
    )  # fmt: skip
    assert read(Load(None, "", 0, None, error_type="X")).model.name == "unknown"


def test_the_hash_of_a_new_session_is_the_digest_if_that_is_of_all_bytes() -> None:
    whole = Load(dataclasses.replace(INFO, graph=graph_of("ab")), "", 0, None)
    part = Load(dataclasses.replace(INFO, graph=graph_of("ab", is_complete=False)), "", 0, None)
    assert [read(load).sha256 for load in (whole, whole._replace(is_new=False), part)] == ["ab", "", ""]


def test_a_reference_is_passed_on_unread_up_to_a_length(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "MAX_REFERENCE_CHARACTERS", 3)
    texts = {
        text: read(Load(dataclasses.replace(INFO, metadata={"otel_mlmon.reference": text}), "", 0, None)).reference
        for text in ("", "{x", "{xy", "{xyz")
    }
    assert texts == {"": "", "{x": "{x", "{xy": "{xy", "{xyz": ""}
    assert [record.getMessage() for record in caplog.records] == [
        "Model iris: its reference profile is longer than 3 characters and is not sent."
    ]


def test_an_unknown_version_is_none() -> None:
    assert read(Load(dataclasses.replace(INFO, version=UNKNOWN_VERSION), "", 0, None)).model.version == ""


def info(name: str) -> SessionInfo:
    return SessionInfo(
        model_name=name, path="", graph_name="", version=1, metadata={}, provider="P", runtime_version="1"
    )


def tracker_of(loads: deque[Load]) -> ModelLoadTracker:
    return ModelLoadTracker(
        loads, is_suppressed=lambda context: context == "suppressed",
        options=lambda _: ModelOptions(version="7"), findings=ModelFindings(),
    )  # fmt: skip


def announced(tracker: ModelLoadTracker) -> list[tuple[str, object, float | None]]:
    return [(loaded.model.name, loaded.context, loaded.duration_s) for loaded in tracker.take_load_announcements()]


def test_a_session_is_announced_once_at_its_creation_or_at_its_first_call() -> None:
    loads: deque[Load] = deque()
    tracker = tracker_of(loads)
    a, b = info("a"), info("b")
    loads.append(Load(a, "", 1, "here", duration_s=0.5))
    tracker.take_queued_loads()
    for session in (a, b, a, b):
        tracker.announce_session(session)
    assert announced(tracker) == [("a", "here", 0.5), ("b", None, None)]
    assert announced(tracker) == []
    assert [(model.name, model.version, seconds, error) for model, seconds, error in tracker.take_load_durations()] == [
        ("a", "7", 0.5, None)
    ]
    assert tracker.take_load_durations() == []
    assert not loads


def test_a_suppressed_load_is_announced_at_the_first_call_that_is_not() -> None:
    loads = deque([Load(a := info("a"), "", 1, "suppressed", duration_s=0.5)])
    tracker = tracker_of(loads)
    tracker.take_queued_loads()
    assert (announced(tracker), tracker.take_load_durations()) == ([], [])
    tracker.announce_session(a)
    assert announced(tracker) == [("a", None, None)]


def test_a_failed_load_is_timed_by_its_error() -> None:
    tracker = tracker_of(deque([Load(None, "/models/fraud.onnx", 1, None, duration_s=2.0, error_type="NoSuchFile")]))
    tracker.take_queued_loads()
    assert [(model.name, seconds, error) for model, seconds, error in tracker.take_load_durations()] == [
        ("fraud", 2.0, "NoSuchFile")
    ]


def test_sessions_without_end_are_bounded() -> None:
    tracker = tracker_of(deque())
    for number in range(loading.MAX_SESSIONS + 5):
        tracker.announce_session(info(str(number)))
    assert len(announced(tracker)) == loading.MAX_SESSIONS
    assert len(tracker._announced) == loading.MAX_SESSIONS
