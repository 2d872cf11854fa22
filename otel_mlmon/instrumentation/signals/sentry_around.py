"""What of Sentry's was around a call, read on the host's thread as cheaply as can be, and understood behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from otel_mlmon.guard import guard

_MODULE: Final = "sentry_sdk.scope"


def _nothing(_: object = None) -> Any:
    return None


def reader(
    plain: Callable[[None], object],
    *,
    seen: Callable[[], None],
    is_wanted: Callable[[], bool],
    is_open: Callable[[Any], bool],
) -> Callable[[None], object]:
    """A function that gives `plain(None)`, or a pair of it and Sentry's span or propagation context.

    Sentry's own `get_current_span` costs 1 µs; its context variables cost a tenth. They are private to it, so they are
    used only if they are there, and nothing is carried otherwise. A propagation context makes its ids when it is first
    asked, without a lock, so it is asked here: asked by the host and by us at once, it would give each another trace.

    Args:
        plain: Gives OpenTelemetry's context, or its argument where there is none.
        seen: Called once, at the first call that finds Sentry imported.
        is_wanted: Whether a thread that Sentry knows nothing of yet gets a trace id of its own, which Sentry would give
            to the first error there.
        is_open: Whether the span around a call belongs to a transaction that has not ended.
    """
    modules = sys.modules
    is_bound = False
    current: Callable[[Any], Any] = _nothing
    isolation: Callable[[Any], Any] = _nothing

    def bind(module: Any) -> None:
        nonlocal is_bound, current, isolation
        is_bound = True
        with guard("sentry"):
            slots = ("_span", "_propagation_context")
            if all(hasattr(module.Scope(), slot) for slot in slots):
                current, isolation = module._current_scope.get, module._isolation_scope.get
            seen()

    def read(absent: None) -> object:
        if not is_bound:
            module = modules.get(_MODULE)
            # A module that is being imported on another thread has no `Scope` yet.
            if module is None or not hasattr(module, "use_isolation_scope"):
                return plain(absent)
            bind(module)
        scope = current(None)
        if scope is None:
            return plain(absent) if current is _nothing or not is_wanted() else (plain(absent), _fresh())
        around = scope._span
        if around is not None:
            if not is_open(around):
                return plain(absent)
        else:
            outer = isolation(None)
            around = scope._propagation_context or (outer and outer._propagation_context)
            _settle(around)
        return (plain(absent), around) if around is not None else plain(absent)

    return read


def _fresh() -> object:
    """The propagation context of a thread that Sentry knew nothing of."""
    scope = sys.modules[_MODULE].Scope
    scope.get_current_scope()
    around = scope.get_isolation_scope()._propagation_context
    _settle(around)
    return around


def _settle(around: Any) -> None:
    """Let a propagation context have its ids."""
    if not getattr(around, "_trace_id", ""):
        ids_of(around)


class Parent(NamedTuple):
    """The span of Sentry's that was active at a call."""

    span: Any
    trace_id: str
    span_id: str
    root_id: str
    """The span id of its transaction; empty if it has none, or is streamed."""
    is_sampled: bool
    is_streamed: bool


def is_streamed(span: Any) -> bool:
    """Whether it is one of Sentry's streamed spans."""
    traces = sys.modules.get("sentry_sdk.traces")
    return traces is not None and isinstance(span, traces.StreamedSpan)


def parent_of(around: Any) -> Parent | None:
    """The span that was around a call; None if there was none."""
    if around is None or not hasattr(around, "sampled"):
        return None
    if is_streamed(around):
        is_sampled = bool(around.sampled)
        return Parent(around, around.trace_id, around.span_id, "", is_sampled, is_streamed=True)
    transaction = around.containing_transaction
    if transaction is None:
        return Parent(around, around.trace_id, around.span_id, "", is_sampled=False, is_streamed=False)
    is_sampled, root_id = bool(transaction.sampled), transaction.span_id
    return Parent(around, around.trace_id, around.span_id, root_id, is_sampled, is_streamed=False)


def ids_of(around: Any) -> tuple[int, int] | None:
    """Trace and span id of a span or of a propagation context, as OpenTelemetry counts them."""
    trace_id, span_id = getattr(around, "trace_id", None), getattr(around, "span_id", None)
    try:
        found = int(str(trace_id), 16), int(str(span_id), 16)
    except ValueError:
        return None
    return found if all(found) else None
