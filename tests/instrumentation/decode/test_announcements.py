from __future__ import annotations

from collections import deque

from otel_mlmon.instrumentation.decode import announcements as announcing
from otel_mlmon.instrumentation.decode.announcements import MAX_SESSIONS, Announcer
from otel_mlmon.instrumentation.runtime.call import Load, SessionInfo


def info(name: str) -> SessionInfo:
    return SessionInfo(
        model_name=name, path="", digest="", graph_name="", version=1, metadata={}, provider="P", runtime_version="1"
    )


def announcer(noted: deque[Load]) -> Announcer:
    return Announcer(noted, is_suppressed=lambda found: found == "suppressed", version_of=lambda _: "7")


def told(found: Announcer) -> list[tuple[str, object, float | None]]:
    return [(loaded.model.name, loaded.context, loaded.duration_s) for loaded in found.announcements()]


def test_a_session_is_told_once_at_its_creation_or_at_its_first_call() -> None:
    noted: deque[Load] = deque()
    found = announcer(noted)
    a, b = info("a"), info("b")
    noted.append(Load(a, "", 1, "here", duration_s=0.5))
    found.take()
    for session in (a, b, a, b):
        found.see(session)
    assert told(found) == [("a", "here", 0.5), ("b", None, None)]
    assert told(found) == []
    assert [(model.name, model.version, seconds, error) for model, seconds, error in found.timed()] == [
        ("a", "7", 0.5, None)
    ]
    assert found.timed() == []
    assert not noted


def test_a_suppressed_load_is_told_at_the_first_call_that_is_not() -> None:
    noted = deque([Load(a := info("a"), "", 1, "suppressed", duration_s=0.5)])
    found = announcer(noted)
    found.take()
    assert (told(found), found.timed()) == ([], [])
    found.see(a)
    assert told(found) == [("a", None, None)]


def test_a_failed_load_is_timed_by_its_error() -> None:
    found = announcer(deque([Load(None, "/models/fraud.onnx", 1, None, duration_s=2.0, error_type="NoSuchFile")]))
    found.take()
    assert [(model.name, seconds, error) for model, seconds, error in found.timed()] == [("fraud", 2.0, "NoSuchFile")]


def test_sessions_without_end_are_bounded() -> None:
    found = announcer(deque())
    for number in range(MAX_SESSIONS + 5):
        found.see(info(str(number)))
    assert len(told(found)) == MAX_SESSIONS
    assert len(found._known) == announcing.MAX_SESSIONS
