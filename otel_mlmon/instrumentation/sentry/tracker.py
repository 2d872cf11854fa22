"""Sends inference calls to Sentry as spans and transactions, and links errors to models and traces.

In mode `native` calls go through Sentry's own tracing; in `otlp` OpenTelemetry's spans are exported to it, and in
`otel` Sentry's own span processor makes its spans of OpenTelemetry's, so that nothing is sent from here. Until an
application initialises Sentry there is nothing to do, and a call costs a few look-ups more; none where it is not
installed.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import random
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from opentelemetry import trace
from opentelemetry.context import Context

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.decode.predictions import CallDescription, Predictions, describe_call
from otel_mlmon.instrumentation.export.call_sampler import CallPriorities, EvenDraws, Samples, prioritize_calls
from otel_mlmon.instrumentation.export.error_tracker import (
    ContextReader,
    ErrorTracker,
    NullErrorTracker,
    RelatedSpans,
    SpanIds,
)
from otel_mlmon.instrumentation.sentry import otlp as sentry_otlp
from otel_mlmon.instrumentation.sentry.client import (
    INSTALL,
    SentryClientAdjuster,
    find_active_client,
    has_exit_flush,
    has_sentry_tracing,
    has_span_streaming,
    shorten_exit_timeout,
)
from otel_mlmon.instrumentation.sentry.errors import link_event_to_trace, tag_event_with_model
from otel_mlmon.instrumentation.sentry.events import start_processing_events, stop_processing_events, weigh_transaction
from otel_mlmon.instrumentation.sentry.mode import choose_sentry_mode
from otel_mlmon.instrumentation.sentry.scope import (
    MODULE,
    ParentSpan,
    make_context_reader,
    read_parent_spans,
    read_sent_parent_spans,
    read_span_ids,
)
from otel_mlmon.instrumentation.sentry.spans import (
    ChildSpanStore,
    build_child_span,
    send_streamed_spans,
    send_transactions,
)
from otel_mlmon.instrumentation.settings import InstrumentationSettings
from otel_mlmon.types import Bools, ModelKey

CATCH_UP_S: Final = 0.5
"""Seconds that a transaction that ends waits for calls that are being decoded."""

MAX_JOINED_CALLS: Final = 100
"""Calls outside any span that join the trace Sentry has for the thread, so that errors after them link: a request has
fewer, and a script without end does not become one trace without end."""

MAX_JOINED_TRACES: Final = 1024
"""Traces whose calls are counted for that, the latest ones: each thread has its own."""

WaitingCallReader: TypeAlias = Callable[..., Sequence[CallDescription]]
"""Reads the calls of one transaction that were not decoded yet: see `WaitingCallReader.read_waiting_calls`."""

_LOG: Final = logging.getLogger("otel_mlmon")


def make_error_tracker(
    settings: InstrumentationSettings,
    *,
    read_context: ContextReader,
    read_waiting: WaitingCallReader,
    model_of: Callable[[object], ModelKey | None],
    rng: random.Random,
    on_client: Callable[[], object],
) -> ErrorTracker:
    """Makes the error tracker that the settings ask for: Sentry's, or one that does nothing.

    Args:
        settings: Those that begin with `sentry`, and `spans_per_second`.
        read_context: Reads OpenTelemetry's context, or gives back its argument where there is none.
        read_waiting: Reads calls that were not decoded yet.
        model_of: Gives the model of a session, or of an exception that left a block of `observe()`; None of others.
        rng: Where Sentry's sampling of our transactions begins.
        on_client: Called where the application has initialised Sentry, which then flushes at exit before us.
    """
    if settings.sentry == "off":
        return NullErrorTracker(read_context)
    with guard("sentry"):
        if importlib.util.find_spec("sentry_sdk") is not None:
            return SentryTracker(
                settings,
                read_context=read_context,
                read_waiting=read_waiting,
                model_of=model_of,
                rng=rng,
                on_client=on_client,
            )
        if settings.sentry_dsn or settings.sentry != "auto":
            _LOG.warning(INSTALL)
    return NullErrorTracker(read_context, mode="waiting")


class SentryTracker:
    """Sends inference calls to Sentry; its arguments are those of `make_error_tracker`.

    Runs on: the function of `find_context_reader` and `process_event` on the host's threads; else the worker thread.
    """

    def __init__(
        self,
        settings: InstrumentationSettings,
        *,
        read_context: ContextReader,
        read_waiting: WaitingCallReader,
        model_of: Callable[[object], ModelKey | None],
        rng: random.Random,
        on_client: Callable[[], object],
    ) -> None:
        self._settings = settings
        self._sample_rate = settings.sentry_traces_sample_rate or 0.0
        self._read_context = read_context
        self._read_both_contexts: ContextReader | None = None
        self._read_waiting = read_waiting
        self._model_of = model_of
        self._on_client = on_client
        self._sample_rands = EvenDraws(rng)
        self._clients = SentryClientAdjuster(self._sample_rate, decides_downstream=settings.sentry_decides_downstream)
        self._client: Any = None
        self._span_processor: sentry_otlp.SentrySpanProcessor | None = None
        self._unlink_errors: Callable[[], None] = _undo_nothing
        self.mode: str = "waiting"
        self.is_active = False
        self.reset_calls()
        with guard("sentry"):
            self._start_client()

    def reset_calls(self) -> None:
        """Discards the inference calls of the parent process, in a forked child."""
        self._adopting = threading.Lock()
        self._child_spans = ChildSpanStore()
        self._joined_calls: OrderedDict[str, int] = OrderedDict()
        self._has_unflushed = False

    def find_context_reader(self) -> ContextReader:
        """Returns the function that reads the trace context of a call, Sentry's too once that is imported."""
        if self._read_both_contexts is None and MODULE in sys.modules:
            self._read_both_contexts = make_context_reader(
                self._read_context,
                on_client=self.adopt_client,
                is_enabled=lambda: self.is_active,
                has_spans=self._has_span_children,
                is_open=self._is_span_open,
            )
        return self._read_both_contexts or self._read_context

    def adopt_client(self) -> None:
        """Starts to use a Sentry client that the application has initialised meanwhile."""
        # No waiting: a signal handler may run a model, and the thread that holds the lock adopts the same client.
        if not self._adopting.acquire(blocking=False):
            return
        try:
            client = find_active_client()
            if client is not None and self._clients.is_new_client(client):
                self._use_client(client)
                self._on_client()
        finally:
            self._adopting.release()

    def store_child_spans(self, predictions: Predictions, contexts: Sequence[object]) -> None:
        """Stores the spans of calls in sampled Sentry transactions, until these are sent."""
        if not contexts or self.mode != "native":
            return
        with guard("sentry"):
            offset_ns = time.time_ns() - time.perf_counter_ns()
            priorities: CallPriorities | None = None
            for call, parent in read_parent_spans(contexts).items():
                # None of a transaction that was sent: it took the calls that waited with it.
                if parent.is_sampled and self._child_spans.has_span_room(parent.root_id):
                    priorities = priorities or prioritize_calls(predictions)
                    description = describe_call(predictions, priorities, call)
                    span = build_child_span(description, parent.trace_id, parent.span_id, offset_ns)
                    self._child_spans.add_span(parent.root_id, span)

    def find_related_spans(self, predictions: Predictions, contexts: Sequence[object]) -> RelatedSpans | None:
        """Returns the Sentry span that each inference call was inside; None if no call was in one."""
        if not contexts or not self.is_active:
            return None
        parents = read_parent_spans(contexts)

        @functools.cache
        def related_span(call: int) -> SpanIds | None:
            context = contexts[call]
            return read_span_ids(context) if call in parents or self._is_in_trace(predictions, call, context) else None

        return related_span

    def find_transaction_candidates(self, predictions: Predictions, contexts: Sequence[object]) -> Bools:
        """Returns which inference calls of a batch may become Sentry transactions, being outside any."""
        client = self._client
        is_candidate = np.zeros(len(predictions.errors), dtype=bool)
        if self.mode == "native" and client is not None and has_sentry_tracing(client):
            is_candidate[:] = True
            is_candidate[list(read_sent_parent_spans(contexts))] = False
        return is_candidate

    def send_calls(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        samples: Samples,
        contexts: Sequence[object],
        span_contexts: Mapping[int, Context],
        related_spans: RelatedSpans | None,
        *,
        offset_ns: int,
    ) -> None:
        """Sends the sampled calls that were made outside any Sentry transaction, as transactions or streamed spans."""
        client = self._client
        if self.mode != "native" or client is None or not has_sentry_tracing(client):
            return
        ids = {
            call: _read_otel_span_ids(span_contexts.get(call)) or (related_spans(call) if related_spans else None)
            for call in samples
        }
        rands = self._sample_rands
        if has_span_streaming(client):
            parents = {call: parent for call, parent in read_sent_parent_spans(contexts).items() if parent.is_sampled}
            if parents or ids:
                places: dict[int, ParentSpan | SpanIds | None] = {**parents, **ids}
                send_streamed_spans(predictions, priorities, samples, places, rands, offset_ns=offset_ns)
                self._has_unflushed = True
        elif samples:
            send_transactions(predictions, priorities, samples, ids, rands, offset_ns=offset_ns)
            self._has_unflushed = True

    def export_spans(self, provider: Any, *, is_own: bool) -> None:
        """Exports the OpenTelemetry spans of a tracer provider to Sentry, in mode `otlp` only."""
        client = self._client
        if self.mode != "otlp" or sentry_otlp.has_otlp_setup(client) or not hasattr(provider, "add_span_processor"):
            return
        rands, ratio = self._sample_rands, self._sample_rate if is_own else 1.0
        self._span_processor = sentry_otlp.SentrySpanProcessor(
            client.options["dsn"], is_sampled=lambda: self.mode == "otlp" and next(rands) < ratio
        )
        provider.add_span_processor(self._span_processor)

    def flush_calls(self, timeout_s: float) -> None:
        """Makes Sentry's client send the inference calls that it still holds."""
        with guard("sentry"):
            if self._span_processor is not None:
                self._span_processor.force_flush(max(0, int(timeout_s * 1000)))
            if self._has_unflushed and timeout_s > 0 and self._client is not None:
                self._has_unflushed = False
                self._client.flush(timeout=timeout_s)

    def close_tracker(self, timeout_s: float, /, *, is_exit: bool = False) -> None:
        """Sends what is queued, and undoes all changes made to the application's Sentry client."""
        with guard("sentry"):
            if is_exit and self._client is not None and has_exit_flush(self._client):
                shorten_exit_timeout(self._client, by_s=self._settings.shutdown_timeout_s - timeout_s)
            else:
                self.flush_calls(timeout_s)
            self.mode, self.is_active = "off", False
            stop_processing_events(self.process_event)
            self._unlink_errors()
            if self._span_processor is not None:
                self._span_processor.shutdown()
            self._clients.restore_sample_rates(max(0.0, timeout_s), is_exit=is_exit)
            self._client = None

    def process_event(self, event: Any, hint: Any) -> None:
        """Adds spans to a Sentry transaction, or model and trace to an error, before the event is sent.

        Args:
            event: Sentry's event, changed in place.
            hint: What Sentry knows besides, such as the exception.
        """
        kind = event.get("type")
        if kind == "transaction":
            if self.mode == "native":
                self._add_child_spans(event)
            weigh_transaction(event)
        elif kind is None:
            error = (hint.get("exc_info") or (None, None))[1]
            if tag_event_with_model(event, error, self._model_of) and self.mode == "native":
                link_event_to_trace(event, is_in_span=self._is_in_span())

    def _start_client(self) -> None:
        dsn = self._settings.sentry_dsn or os.environ.get("SENTRY_DSN", "").strip()
        if dsn and find_active_client() is None:
            is_native = self._settings.sentry != "otlp" or not sentry_otlp.is_otlp_available()
            self._clients.initialise_sentry(dsn, self._sample_rate or None if is_native else None)
        self.adopt_client()

    def _use_client(self, client: Any) -> None:
        self._client = client
        start_processing_events(self.process_event)
        unlink_errors, self._unlink_errors = self._unlink_errors, _undo_nothing
        mode = choose_sentry_mode(self._settings.sentry, client)
        if mode == "otlp":
            # A link of ours is replaced by the integration's own, and by nothing else.
            if not sentry_otlp.has_otlp_setup(client):
                self._unlink_errors = unlink_errors if unlink_errors is not _undo_nothing else sentry_otlp.link_errors()
        else:
            unlink_errors()
            self._clients.raise_sample_rate(client)
        self.mode, self.is_active = mode, True

    def _is_in_trace(self, predictions: Predictions, call: int, context: object) -> bool:
        """Returns whether a call outside any span belongs to the trace that Sentry has for its thread."""
        if not isinstance(context, tuple) or _read_otel_span_ids(predictions.contexts[call]):
            return False
        trace_id = context[0]
        count = self._joined_calls.pop(trace_id, 0) + 1
        self._joined_calls[trace_id] = count
        if len(self._joined_calls) > MAX_JOINED_TRACES:
            self._joined_calls.popitem(last=False)
        if predictions.errors[call]:
            return True
        # OpenTelemetry's samplers decide by trace id: calls of one trace would be sent all or not at all.
        return self.mode == "native" and count <= MAX_JOINED_CALLS

    def _add_child_spans(self, event: Any) -> None:
        trace_context = (event.get("contexts") or {}).get("trace") or {}
        root_id, spans = str(trace_context.get("span_id")), event.get("spans")
        if not self._child_spans.is_span_expected(root_id):
            return

        def is_within(context: Any) -> bool:
            transaction = getattr(context[1], "containing_transaction", None) if type(context) is tuple else None
            return transaction is not None and transaction.span_id == root_id

        child_spans: list[dict[str, Any]] = []
        waiting = self._read_waiting(
            CATCH_UP_S,
            is_within,
            lambda: self._child_spans.count_waiting_calls(root_id),
            lambda: child_spans.extend(self._child_spans.pop_spans(root_id)),
        )
        offset_ns = time.time_ns() - time.perf_counter_ns()
        for call in waiting:
            parent: Any = call.context[1]  # type: ignore[index]
            child_spans.append(build_child_span(call, parent.trace_id, parent.span_id, offset_ns))
        child_spans.sort(key=lambda span: span["start_timestamp"])
        if isinstance(spans, list):
            spans.extend(child_spans)

    def _has_span_children(self) -> bool:
        """Returns whether calls become children of the Sentry span that they run in, in the present mode."""
        if self.mode == "otlp":
            return self._client is not None and has_sentry_tracing(self._client)
        return self.mode == "native"

    def _is_span_open(self, span: Any) -> bool:
        """Returns whether a Sentry span has not ended; its sampled transaction then waits for the call.

        A thread of a pool keeps the span of its starting thread. Asked at the call: clocks compared later differ.
        """
        transaction = getattr(span, "containing_transaction", None)
        if transaction is not None:
            if transaction.timestamp is not None:
                return False
            if transaction.sampled and self.mode == "native":
                self._child_spans.expect_span(transaction.span_id)
        return True

    def _is_in_span(self) -> bool:
        import sentry_sdk

        scope = sentry_sdk.get_current_scope()
        span = scope.span or getattr(scope, "streamed_span", None)
        return span is not None and self._client is not None and has_sentry_tracing(self._client)


def _undo_nothing() -> None:
    """Undoes nothing, since Sentry's errors were not linked to spans."""


def _read_otel_span_ids(context: Any) -> SpanIds | None:
    if context is None:
        return None
    span_context = trace.get_current_span(context).get_span_context()
    return (span_context.trace_id, span_context.span_id) if span_context.is_valid else None
