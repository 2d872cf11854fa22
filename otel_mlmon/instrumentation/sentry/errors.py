"""Adds to Sentry's error events which model was running, and which trace of OpenTelemetry's the error is in.

Nothing is stored for it: an exception that went through the patched method carries our frame in its traceback, and with
it the session.
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

_OWN_MODULES: Final = "otel_mlmon."
_RUNTIME_MODULES: Final = "otel_mlmon.instrumentation.runtime."


def session_of(error: BaseException | None) -> Any:
    """Returns the session whose call raised `error` or one of its causes; None if there is none."""
    for cause in _causes(error):
        frame = cause.__traceback__
        while frame is not None:
            inner = frame.tb_frame
            if str(inner.f_globals.get("__name__", "")).startswith(_RUNTIME_MODULES) and "self" in inner.f_locals:
                return inner.f_locals["self"]
            frame = frame.tb_next
    return None


def tag_model(event: Any, error: BaseException | None, model_of: Callable[[Any], ModelKey | None]) -> None:
    """Tags an event with the model whose call raised the error, and removes the inputs of our own frames.

    Args:
        event: Sentry's error event, changed in place.
        error: The exception.
        model_of: Gives the model of a session; None if it has none.
    """
    session = session_of(error)
    model = None if session is None else model_of(session)
    if model is None:
        return
    _remove_inputs(event)
    tags = event.setdefault("tags", {})
    if not isinstance(tags, dict):
        return
    for key, value in ((semconv.MODEL_NAME, model.name), (semconv.MODEL_VERSION, model.version)):
        if value:
            tags.setdefault(key, " ".join(value.split())[:MAX_TAG])


def link_trace(event: Any, *, is_in_span: bool) -> None:
    """Puts an error into the trace of OpenTelemetry's current span, or, inside a span of Sentry's, notes that trace.

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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(MAX_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _remove_inputs(event: Any) -> None:
    """Removes our own frames' variables, which are the inputs of the model."""
    for value in (event.get("exception") or {}).get("values") or ():
        for frame in ((value or {}).get("stacktrace") or {}).get("frames") or ():
            if str(frame.get("module") or "").startswith(_OWN_MODULES):
                frame.pop("vars", None)
