"""The OpenTelemetry context of the host's thread, read as cheaply as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, copy_context
from typing import Any, Final, TypeAlias

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


def reader() -> Callable[[None], object]:
    """A function that gives the current context, or None, its argument, where none was ever attached.

    It is the bound `get` of the variable behind the API, 0.02 µs, where `get_current` takes 0.15. The variable is
    private, so it is used only if it gives the very context that was attached by the API.
    """
    variable = getattr(getattr(context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    if isinstance(variable, ContextVar) and copy_context().run(_holds_current, variable):
        return variable.get
    return lambda absent: context.get_current() or absent


def _holds_current(variable: ContextVar[object]) -> bool:
    probe = context.Context({"otel_mlmon": "probe"})
    token = context.attach(probe)
    try:
        return variable.get(None) is probe
    finally:
        context.detach(token)


def plain(captured: object) -> object:
    """The context of OpenTelemetry's, `EMPTY` if there was none, without what else was carried with it."""
    return (captured[0] if type(captured) is tuple else captured) or EMPTY


def is_suppressed(captured: object) -> bool:
    """Whether the host had switched instrumentation off around the call."""
    captured = plain(captured)
    # Asked of every call of a host with Sentry: what a mapping is, is a long question.
    if captured is EMPTY or not isinstance(captured, Mapping):
        return False
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY)
    return bool(captured.get(key) or captured.get(_PLAIN_KEY))


def split(captured: Sequence[object]) -> tuple[Sequence[object], Sequence[object]]:
    """The contexts of OpenTelemetry's, `EMPTY` of calls without; and what else was carried with each, or None.

    The second is empty if none carried any.
    """
    if not any(captured):
        return [EMPTY] * len(captured), ()
    kinds = set(map(type, captured))
    if tuple not in kinds:
        return list(map(plain, captured)), ()
    pairs: Any = captured if len(kinds) == 1 else [each if type(each) is tuple else (each, None) for each in captured]
    contexts, around = zip(*pairs, strict=True)
    return [each or EMPTY for each in contexts], list(around)
