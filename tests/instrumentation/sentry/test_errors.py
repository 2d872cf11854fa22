from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.sentry.errors import MAX_TAG, find_failed_model, tag_event_with_model
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
    models: dict[object, ModelKey] = {session: ModelKey("iris")}
    later = KeyError("handled")
    later.__context__ = inner
    assert find_failed_model(later, models.get) == ModelKey("iris")
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = inner
    assert find_failed_model(wrapped, models.get) == ModelKey("iris")
    assert find_failed_model(None, models.get) is None
    assert find_failed_model(RuntimeError("elsewhere"), models.get) is None


def test_an_exception_is_asked_after_the_session_in_its_frames() -> None:
    session = object()
    error = failed(session)
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    observed: dict[object, ModelKey] = {error: ModelKey("observed")}
    assert find_failed_model(wrapped, observed.get) == ModelKey("observed")
    both: dict[object, ModelKey] = {error: ModelKey("observed"), session: ModelKey("iris")}
    assert find_failed_model(wrapped, both.get) == ModelKey("iris")


def test_causes_in_a_circle_end() -> None:
    first, second = RuntimeError("1"), RuntimeError("2")
    first.__cause__, second.__cause__ = second, first
    assert find_failed_model(first, lambda _: None) is None


@settings(deadline=None, max_examples=100)
@given(st.text(), st.text())
def test_tags_are_what_sentry_takes(name: str, version: str) -> None:
    event: dict[str, Any] = {}
    tag_event_with_model(event, failed(object()), lambda _: ModelKey(name, version))
    for value in event["tags"].values():
        assert len(value) <= MAX_TAG
        assert "\n" not in value


def test_what_the_application_says_wins() -> None:
    event: dict[str, Any] = {"tags": {"ml.model.name": "mine"}, "exception": {"values": [None, {"stacktrace": None}]}}
    tag_event_with_model(event, failed(object()), lambda _: ModelKey("iris", "7"))
    assert event["tags"] == {"ml.model.name": "mine", "ml.model.version": "7"}


def test_our_frames_lose_their_variables_and_the_hosts_keep_theirs() -> None:
    own = {"module": "otel_mlmon.instrumentation.runtime.onnxruntime.patches", "vars": {"input_feed": 1}}
    host = {"module": "app", "vars": {"x": 1}}
    event: dict[str, Any] = {"exception": {"values": [{"stacktrace": {"frames": [host, own]}}]}}
    tag_event_with_model(event, failed(object()), lambda _: ModelKey("iris", ""))
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


def test_frames_of_onnxruntime_lose_their_variables_wherever_they_are() -> None:
    frames: list[dict[str, Any]] = [
        {"module": "onnxruntime.capi.onnxruntime_inference_collection", "vars": {"input_feed": 1}},
        {"module": "onnxruntime_app", "vars": {"x": 1}},
        {"module": None, "vars": {"y": 1}},
    ]

    def trace() -> dict[str, Any]:
        return {"stacktrace": {"frames": [dict(frame) for frame in frames]}}

    kept = {"stacktrace": {"frames": [{"module": "onnxruntime.capi.onnxruntime_inference_collection"}, *frames[1:]]}}
    event: dict[str, Any] = {"exception": {"values": [trace()]}, "threads": {"values": [trace()]}, **trace()}
    assert not tag_event_with_model(event, RuntimeError("of no call"), lambda _: None)
    assert event == {"exception": {"values": [kept]}, "threads": {"values": [kept]}, **kept}
