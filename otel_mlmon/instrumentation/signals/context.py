"""The OpenTelemetry context of the host's thread, read as cheaply as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Final, TypeAlias

from opentelemetry import context, trace

_PLAIN_KEY: Final = "suppress_instrumentation"
"""What libraries besides OpenTelemetry's own set; source: opentelemetry.instrumentation.utils."""

EMPTY: Final = context.Context()
"""Of what belongs to no trace."""
NOWHERE: Final = trace.set_span_in_context(trace.INVALID_SPAN, EMPTY)
"""The same for the SDK's instruments, which take an empty context for none and look at the thread's own: `flush` runs
on a thread of the host's, within its spans."""
Carried: TypeAlias = "tuple[object, object]"
"""A context of OpenTelemetry's, which is never a tuple, and what else was around the call."""


def reader() -> Callable[[], object]:
    """A function that gives the current context: the bound `get` of the variable behind it, else `get_current`.

    The variable is private to the API, so it is used only if it gives the very context that the API gives.
    """
    variable = getattr(getattr(context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    if isinstance(variable, ContextVar) and variable.get(None) is context.get_current():
        return variable.get
    return context.get_current


def plain(captured: object) -> object:
    """The context of OpenTelemetry's, without what else was carried with it."""
    return captured[0] if type(captured) is tuple else captured


def is_suppressed(captured: object) -> bool:
    """Whether the host had switched instrumentation off around the call."""
    captured = plain(captured)
    if not captured or not isinstance(captured, Mapping):
        return False
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY)
    return bool(captured.get(key) or captured.get(_PLAIN_KEY))


def split(captured: Sequence[object]) -> tuple[Sequence[object], Sequence[object]]:
    """The contexts of OpenTelemetry's, and what else was carried with each, or None; nothing if none carried any."""
    if tuple not in set(map(type, captured)):
        return captured, ()
    pairs = [each if type(each) is tuple else (each, None) for each in captured]
    return [context for context, _ in pairs], [around for _, around in pairs]
