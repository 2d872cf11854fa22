from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.sentry.errors import MAX_TAG, session_of, tag_model
from otel_mlmon.types import ModelKey

CALL = """
def run(self):
    raise ValueError("no")
"""


def failed(session: object) -> ValueError:
    """An exception that went through a patched method."""
    namespace: dict[str, Any] = {"__name__": "otel_mlmon.instrumentation.runtime.onnxruntime.patches"}
    exec(CALL, namespace)
    with pytest.raises(ValueError, match="no") as caught:
        namespace["run"](session)
    return caught.value


def test_the_session_is_found_through_causes_and_contexts() -> None:
    session = object()
    inner = failed(session)
    later = KeyError("handled")
    later.__context__ = inner
    assert session_of(later) is session
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = inner
    assert session_of(wrapped) is session
    assert session_of(None) is None
    assert session_of(RuntimeError("elsewhere")) is None


def test_causes_in_a_circle_end() -> None:
    first, second = RuntimeError("1"), RuntimeError("2")
    first.__cause__, second.__cause__ = second, first
    assert session_of(first) is None


@settings(deadline=None, max_examples=100)
@given(st.text(), st.text())
def test_tags_are_what_sentry_takes(name: str, version: str) -> None:
    event: dict[str, Any] = {}
    tag_model(event, failed(object()), lambda _: ModelKey(name, version))
    for value in event["tags"].values():
        assert len(value) <= MAX_TAG
        assert "\n" not in value


def test_what_the_application_says_wins() -> None:
    event: dict[str, Any] = {"tags": {"ml.model.name": "mine"}, "exception": {"values": [None, {"stacktrace": None}]}}
    tag_model(event, failed(object()), lambda _: ModelKey("iris", "7"))
    assert event["tags"] == {"ml.model.name": "mine", "ml.model.version": "7"}


def test_our_frames_lose_their_variables_and_the_hosts_keep_theirs() -> None:
    ours = {"module": "otel_mlmon.instrumentation.runtime.onnxruntime.patches", "vars": {"input_feed": 1}}
    host = {"module": "app", "vars": {"x": 1}}
    event: dict[str, Any] = {"exception": {"values": [{"stacktrace": {"frames": [host, ours]}}]}}
    tag_model(event, failed(object()), lambda _: ModelKey("iris", ""))
    assert event == {
        "tags": {"ml.model.name": "iris"},
        "exception": {
            "values": [
                {
                    "stacktrace": {
                        "frames": [
                            {"module": "app", "vars": {"x": 1}},
                            {"module": "otel_mlmon.instrumentation.runtime.onnxruntime.patches"},
                        ]
                    }
                }
            ]
        },
    }
