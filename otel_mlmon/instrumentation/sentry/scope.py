"""Reads Sentry's span or trace around an inference call, at little cost on the application's thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.export.error_tracker import ContextReader, SpanIds

MODULE: Final = "sentry_sdk.scope"
"""The module that keeps Sentry's scopes; until it is imported, no call is in a span of Sentry's."""

MAX_CACHED_TRACES: Final = 64
"""Traces outside any span whose ids are cached: one a thread, and some that have ended."""

_OUTSIDE: Final = frozenset({tuple, type(None)})
"""Types of Sentry's context around calls in no span."""

HexIds: TypeAlias = "tuple[str, str]"
"""Trace and span id of a propagation context, in hexadecimal."""

_IdsOnly: TypeAlias = "tuple[None, HexIds]"
"""A captured context without OpenTelemetry's."""

_GetScope: TypeAlias = Callable[[None], Any]


def make_context_reader(
    read_context: ContextReader,
    *,
    on_client: Callable[[], None],
    is_enabled: Callable[[], bool],
    has_spans: Callable[[], bool],
    is_open: Callable[[Any], bool],
) -> ContextReader:
    """Returns a function that reads the current OpenTelemetry context together with Sentry's span or trace.

    Sentry's own `get_current_span` costs 1 µs; its context variables cost a tenth. They are private to it, so they are
    used only if they are there, and only OpenTelemetry's context is read otherwise.

    Outside any span the ids stay the same for thousands of calls, and so does the pair that is returned: nothing is
    allocated, and the garbage collector does not walk what holds strings only.

    Args:
        read_context: Reads OpenTelemetry's context, or returns its argument where there is none.
        on_client: Called at the first call after Sentry is imported, and at the first with another client than before.
        is_enabled: Whether Sentry's context is read. If so, a thread that Sentry knows nothing of yet gets a trace id
            of its own, which Sentry would give to the first error there.
        has_spans: Whether a call belongs to Sentry's span around it; if not, to the ids alone.
        is_open: Whether the span around a call belongs to a transaction that has not ended.
    """
    modules, scopes, cached_pair = sys.modules, _SentryScopes(on_client), _make_ids_cache()
    current, isolation, root, client = scopes.current, scopes.isolation, scopes.root, scopes.client
    takes_spans = True
    last: _IdsOnly = (None, ("", ""))

    def read_slowly() -> object:
        """Reads the context where Sentry has another client, no scope or no ids, or is not enabled."""
        nonlocal current, isolation, root, client, takes_spans
        if MODULE not in modules or not scopes.refresh_scopes() or not is_enabled():
            current = _read_no_scope
            return read_context(None)
        isolation, root, client, takes_spans = scopes.isolation, scopes.root, scopes.client, has_spans()
        current = scopes.current  # last: a thread that has this one reads the others
        return read(None) if scopes.create_trace_ids() else read_context(None)

    def read(absent: None) -> object:
        nonlocal last
        scope = current(None)
        if scope is None or root.client is not client:
            return read_slowly()
        span = scope._span
        if span is not None and takes_spans:
            return (read_context(absent), span) if is_open(span) else read_context(absent)
        propagation = scope._propagation_context
        if propagation is None:
            outer = isolation(None)
            propagation = None if outer is None else outer._propagation_context
            if propagation is None:
                return read_slowly()
        pair = last
        ids = pair[1]
        if propagation._span_id is not ids[1] or propagation._trace_id is not ids[0]:
            pair = last = cached_pair(propagation)
        context = read_context(absent)
        return pair if context is None else (context, pair[1])

    return read


def _read_no_scope(_: None) -> None:
    """Stands in for the function that reads Sentry's scope where the SDK has no scopes that can be read."""


class _SentryScopes:
    """Finds where Sentry's SDK keeps its scopes and its client."""

    def __init__(self, on_client: Callable[[], None]) -> None:
        self._on_client = on_client
        self._is_bound = False
        self.current: _GetScope = _read_no_scope
        self.isolation: _GetScope = _read_no_scope
        self.root: Any = None
        """The scope of `sentry_sdk.init`; None in a version that keeps it elsewhere."""
        self.client: Any = None
        """The client of `root` at the last `refresh_scopes`."""

    def refresh_scopes(self) -> bool:
        """Examines Sentry's SDK, and reports a new client; returns whether its scopes can be read."""
        if not self._is_bound:
            module = sys.modules[MODULE]
            # One that is being imported on another thread is not complete yet.
            if not hasattr(module, "use_isolation_scope"):
                return False
            self._is_bound = True
            with guard("sentry"):
                self._bind_scope_variables(module)
        if self.root is None:
            return False
        if self.root.client is not self.client:
            self.client = self.root.client
            with guard("sentry"):
                self._on_client()
        return True

    def create_trace_ids(self) -> bool:
        """Creates Sentry's scopes and trace ids on a new thread; returns whether it has some now."""
        scope = type(self.root)
        scope.get_current_scope()
        outer = scope.get_isolation_scope()
        outer.generate_propagation_context()
        return outer._propagation_context is not None

    def _bind_scope_variables(self, module: Any) -> None:
        probe = module.Scope()
        propagation = getattr(probe, "_propagation_context", None)
        slots = ((module, "_current_scope"), (module, "_isolation_scope"), (probe, "_span"), (propagation, "_span_id"))
        if all(hasattr(owner, slot) for owner, slot in slots):
            self.current, self.isolation = module._current_scope.get, module._isolation_scope.get
            self.root = module.Scope.get_global_scope()
        else:
            self._on_client()


def _make_ids_cache() -> Callable[[Any], _IdsOnly]:
    cache: dict[str, _IdsOnly] = {}

    def cached_pair(propagation: Any) -> _IdsOnly:
        """Returns trace and span id of a Sentry propagation context, each time as the same pair.

        The context creates its ids when it is first asked, without a lock: read by the host and the worker at once, it
        would give each another trace.
        """
        ids = propagation.trace_id, propagation.span_id
        pair = cache.get(ids[1])
        if pair is None or pair[1] != ids:
            if len(cache) >= MAX_CACHED_TRACES:
                cache.clear()
            pair = cache[ids[1]] = (None, ids)
        return pair

    return cached_pair


class ParentSpan(NamedTuple):
    """The Sentry span that an inference call ran in, and the ids of its trace and transaction."""

    span: Any
    trace_id: str
    span_id: str
    root_id: str
    """The span id of its transaction; empty if it has none, or is streamed."""
    is_sampled: bool
    is_streamed: bool


def is_streamed_span(span: Any) -> bool:
    """Returns whether a Sentry span is one that is sent by itself, without a transaction."""
    traces = sys.modules.get("sentry_sdk.traces")
    return traces is not None and isinstance(span, traces.StreamedSpan)


def read_parent_span(context: Any) -> ParentSpan | None:
    """Returns the Sentry span in a captured context; None if it holds none."""
    if not hasattr(context, "sampled"):
        return None
    if is_streamed_span(context):
        is_sampled = bool(context.sampled)
        return ParentSpan(context, context.trace_id, context.span_id, "", is_sampled, is_streamed=True)
    transaction = context.containing_transaction
    if transaction is None:
        return ParentSpan(context, context.trace_id, context.span_id, "", is_sampled=False, is_streamed=False)
    is_sampled, root_id = bool(transaction.sampled), transaction.span_id
    return ParentSpan(context, context.trace_id, context.span_id, root_id, is_sampled, is_streamed=False)


def read_parent_spans(contexts: Sequence[object]) -> dict[int, ParentSpan]:
    """Returns the Sentry span that each inference call ran in, by position of the call."""
    if set(map(type, contexts)) <= _OUTSIDE:
        return {}
    parents: dict[int, ParentSpan] = {}
    previous: object = None
    parent: ParentSpan | None = None
    for call, context in enumerate(contexts):
        if context is not previous:
            previous, parent = context, read_parent_span(context)
        if parent is not None:
            parents[call] = parent
    return parents


def read_sent_parent_spans(contexts: Sequence[object]) -> dict[int, ParentSpan]:
    """Returns the Sentry span that each inference call ran in, if Sentry sends that span.

    It never sends a span without a transaction: such a call gets a transaction in its trace.
    """
    return {
        call: parent for call, parent in read_parent_spans(contexts).items() if parent.root_id or parent.is_streamed
    }


def read_span_ids(context: Any) -> SpanIds | None:
    """Returns Sentry's trace and span id in a captured context; None if it holds no valid ids."""
    if not isinstance(context, tuple):
        context = getattr(context, "trace_id", None), getattr(context, "span_id", None)
    try:
        trace_id, span_id = (int(str(part), 16) for part in context)
    except ValueError:
        return None
    return (trace_id, span_id) if trace_id and span_id else None
