"""Adds to Sentry's error events which model was running, and which OpenTelemetry trace the error is in.

An exception that went through a patched method carries our frame in its traceback, and with it the session. One out of
a block of `observe()` is known to that runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from opentelemetry import trace

from otel_mlmon import semconv
from otel_mlmon.types import ModelKey

MAX_CHAIN: Final = 16
"""Exceptions looked at, each the cause or the context of the one before."""

MAX_TAG: Final = 200
"""Characters of a tag's value. Source: docs.sentry.io, Python, Customize Tags."""

_MODULES_WITH_INPUTS: Final = ("otel_mlmon", "onnxruntime")
"""Packages whose frames hold the inputs of models in their variables."""

_RUNTIME_MODULES: Final = "otel_mlmon.instrumentation.runtime."


def find_failed_model(error: BaseException | None, model_of: Callable[[object], ModelKey | None]) -> ModelKey | None:
    """Returns the model whose call raised an error, or one of the error's causes; None if there is none.

    Args:
        error: The exception.
        model_of: Gives the model of a session, or of an exception that left a block of `observe()`; None of others.
    """
    for cause in _iterate_error_causes(error):
        sources = (source for source in (_find_failed_session(cause), cause) if source is not None)
        model = next((model for source in sources if (model := model_of(source)) is not None), None)
        if model is not None:
            return model
    return None


def tag_event_with_model(
    event: Any, error: BaseException | None, model_of: Callable[[object], ModelKey | None]
) -> bool:
    """Tags a Sentry event with the model whose call raised its error, and removes inputs; returns whether it did.

    Args:
        event: Sentry's error event, changed in place.
        error: The exception.
        model_of: See `find_failed_model`.
    """
    _remove_input_variables(event)
    model = find_failed_model(error, model_of)
    if model is None:
        return False
    tags = event.setdefault("tags", {})
    if isinstance(tags, dict):
        for key, value in ((semconv.MODEL_NAME, model.name), (semconv.MODEL_VERSION, model.version)):
            if value:
                tags.setdefault(key, " ".join(value.split())[:MAX_TAG])
    return True


def link_event_to_trace(event: Any, *, is_in_span: bool) -> None:
    """Adds the current OpenTelemetry trace to a Sentry error event.

    Choice: not `register_external_propagation_context`, which also ends Sentry's own headers on outgoing requests.
    """
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return
    ids = {"trace_id": trace.format_trace_id(current.trace_id), "span_id": trace.format_span_id(current.span_id)}
    contexts = event.setdefault("contexts", {})
    if not is_in_span:
        contexts["trace"] = ids
    elif contexts.get("trace", {}).get("trace_id") != ids["trace_id"]:
        contexts.setdefault("otel", {**ids, "type": "otel"})


def _iterate_error_causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(MAX_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _find_failed_session(error: BaseException) -> object:
    """Returns the model session in whose call an error was raised; None if there is none."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if str(frame.f_globals.get("__name__", "")).startswith(_RUNTIME_MODULES) and "self" in frame.f_locals:
            return frame.f_locals["self"]
        traceback = traceback.tb_next
    return None


def _remove_input_variables(event: Any) -> None:
    """Removes local variables of our and of onnxruntime's frames from a Sentry event's stack traces."""
    holders = [event]
    for key in ("exception", "threads"):
        part = event.get(key) or {}
        holders += (part.get("values") or ()) if isinstance(part, dict) else part
    for holder in holders:
        for frame in ((holder or {}).get("stacktrace") or {}).get("frames") or ():
            if str((frame or {}).get("module") or "").partition(".")[0] in _MODULES_WITH_INPUTS:
                frame.pop("vars", None)
