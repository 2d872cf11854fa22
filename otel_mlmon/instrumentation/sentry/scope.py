"""What of Sentry's was around a call, read on the host's thread as cheaply as can be, and understood behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from otel_mlmon.guard import guard

MODULE: Final = "sentry_sdk.scope"
"""Once it is imported, there may be something of Sentry's around a call."""

MAX_KNOWN: Final = 64
"""Traces outside any span whose ids are kept: one a thread, and some that are over."""

Ids: TypeAlias = "tuple[str, str]"
"""Trace and span id of a propagation context, in hexadecimal."""

_Pair: TypeAlias = "tuple[None, Ids]"
"""What is given where there is no context of OpenTelemetry's."""

_Get: TypeAlias = Callable[[None], Any]


def reader(
    plain: Callable[[None], object],
    *,
    seen: Callable[[], None],
    is_wanted: Callable[[], bool],
    is_open: Callable[[Any], bool],
) -> Callable[[None], object]:
    """A function that gives `plain(None)`, or a pair of it and what of Sentry's is around the call: a span, or `Ids`.

    Sentry's own `get_current_span` costs 1 µs; its context variables cost a tenth. They are private to it, so they are
    used only if they are there, and nothing is carried otherwise.

    Outside any span the ids stay the same for thousands of calls, and so does the pair that is given: nothing is made,
    and the garbage collector does not walk what holds strings only.

    Args:
        plain: Gives OpenTelemetry's context, or its argument where there is none.
        seen: Called at the first call that finds Sentry imported, and at one that finds another client than before.
        is_wanted: Whether anything but `plain(None)` is to be given. If so, a thread that Sentry knows nothing of yet
            gets a trace id of its own, which Sentry would give to the first error there.
        is_open: Whether the span around a call belongs to a transaction that has not ended.
    """
    modules, scopes, recall = sys.modules, _Scopes(seen), _recall()
    current, isolation, root, client = scopes.current, scopes.isolation, scopes.root, scopes.client
    last: _Pair = (None, ("", ""))

    def aside() -> object:
        """Where Sentry has another client, no scope or no ids, or nothing is wanted."""
        nonlocal current, isolation, root, client
        if MODULE not in modules or not scopes.look() or not is_wanted():
            current = _nowhere
            return plain(None)
        isolation, root, client = scopes.isolation, scopes.root, scopes.client
        current = scopes.current  # last: a thread that has this one reads the others
        return read(None) if scopes.make() else plain(None)

    def read(absent: None) -> object:
        nonlocal last
        scope = current(None)
        if scope is None or root.client is not client:
            return aside()
        span = scope._span
        if span is not None:
            return (plain(absent), span) if is_open(span) else plain(absent)
        around = scope._propagation_context
        if around is None:
            outer = isolation(None)
            around = None if outer is None else outer._propagation_context
            if around is None:
                return aside()
        pair = last
        ids = pair[1]
        if around._span_id is not ids[1] or around._trace_id is not ids[0]:
            pair = last = recall(around)
        context = plain(absent)
        return pair if context is None else (context, pair[1])

    return read


def _nowhere(_: None) -> None:
    """No scope."""


class _Scopes:
    """Where Sentry keeps its scopes and its client."""

    def __init__(self, seen: Callable[[], None]) -> None:
        self._seen = seen
        self._is_bound = False
        self.current: _Get = _nowhere
        self.isolation: _Get = _nowhere
        self.root: Any = None
        """The scope of `sentry_sdk.init`; None if it was not found."""
        self.client: Any = None
        """The one of `root` when it was last looked at."""

    def look(self) -> bool:
        """Look at Sentry, which is imported, and tell of another client; whether its scopes are where they were."""
        if not self._is_bound:
            module = sys.modules[MODULE]
            # One that is being imported on another thread is not complete yet.
            if not hasattr(module, "use_isolation_scope"):
                return False
            self._is_bound = True
            with guard("sentry"):
                self._bind(module)
        if self.root is None:
            return False
        if self.root.client is not self.client:
            self.client = self.root.client
            with guard("sentry"):
                self._seen()
        return True

    def make(self) -> bool:
        """The scopes of a thread that Sentry knew nothing of, and ids; whether there are some."""
        scope = type(self.root)
        scope.get_current_scope()
        outer = scope.get_isolation_scope()
        outer.generate_propagation_context()
        return outer._propagation_context is not None

    def _bind(self, module: Any) -> None:
        probe = module.Scope()
        around = getattr(probe, "_propagation_context", None)
        slots = ((module, "_current_scope"), (module, "_isolation_scope"), (probe, "_span"), (around, "_span_id"))
        if all(hasattr(where, slot) for where, slot in slots):
            self.current, self.isolation = module._current_scope.get, module._isolation_scope.get
            self.root = module.Scope.get_global_scope()
        else:
            self._seen()


def _recall() -> Callable[[Any], _Pair]:
    known: dict[str, _Pair] = {}

    def recall(around: Any) -> _Pair:
        """The pair of a propagation context.

        That makes its ids when it is first asked, without a lock: asked by the host and behind at once, it would give
        each another trace.
        """
        ids = around.trace_id, around.span_id
        pair = known.get(ids[1])
        if pair is None or pair[1] != ids:
            if len(known) >= MAX_KNOWN:
                known.clear()
            pair = known[ids[1]] = (None, ids)
        return pair

    return recall


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
    if not hasattr(around, "sampled"):
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
    """Trace and span id of a span or of `Ids`, as OpenTelemetry counts them; None of nothing, and of what is no id."""
    trace_id, span_id = (
        around if isinstance(around, tuple) else (getattr(around, "trace_id", None), getattr(around, "span_id", None))
    )
    try:
        found = int(str(trace_id), 16), int(str(span_id), 16)
    except ValueError:
        return None
    return found if all(found) else None
