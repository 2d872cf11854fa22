"""Sentry: inference calls as its spans and transactions, and errors that know their model and their trace.

Three ways: `native`, Sentry's own tracing; `otlp`, OpenTelemetry's spans sent to it; `off`. Until an application
initialises Sentry there is nothing to do, and a call costs a few look-ups more; none where it is not installed.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from opentelemetry import trace

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.sampling import Interest, Limiter, Slowness, choose, interest
from otel_mlmon.instrumentation.sentry import errors as sentry_errors
from otel_mlmon.instrumentation.sentry import otlp as sentry_otlp
from otel_mlmon.instrumentation.sentry.client import INSTALL, Clients, Mode, active_client, streams, traces
from otel_mlmon.instrumentation.sentry.scope import MODULE, Parent, ids_of, parent_of, reader
from otel_mlmon.instrumentation.sentry.spans import Children, Writer, child, data_of
from otel_mlmon.types import ModelKey

CATCH_UP_S: Final = 0.5
"""How long a transaction that ends waits for the calls inside it to be read."""

JOINED: Final = 100
"""Calls outside any span that join the trace Sentry has for the thread, so that errors after them link: a request has
fewer, and a script without end does not become one trace without end."""

MAX_JOINED: Final = 1024
"""Traces whose calls are counted for that, the latest ones: each thread has its own."""

_OUTSIDE: Final = frozenset({tuple, type(None)})
"""The types of what is around calls in no span."""

_LOG: Final = logging.getLogger("otel_mlmon")


Relative: TypeAlias = "Callable[[int], tuple[int, int] | None]"
"""Trace and span id of Sentry's by a call's position."""


class Options(NamedTuple):
    """What the settings say."""

    mode: Mode
    rate: float
    """What a trace sample rate of None or 0 is raised to; 0 leaves it."""
    dsn: str
    spans_per_second: float


class Sentry:
    """Everything of this process that goes to Sentry.

    Runs on: `reader`, what it gives, and the event processor on the host's threads; all else on the thread behind.

    Args:
        options: The settings.
        plain: Gives OpenTelemetry's context, or its argument where there is none.
        catch_up: Reads the calls that wait, within so many seconds.
        model_of: Name and version of a session's model.
        rng: Chooses calls.
    """

    def __init__(
        self,
        options: Options,
        *,
        plain: Callable[[None], object],
        catch_up: Callable[[float], object],
        model_of: Callable[[Any], ModelKey | None],
        rng: Any,
    ) -> None:
        self._options = options
        self._plain = plain
        self._with_around: Callable[[None], object] | None = None
        self._catch_up = catch_up
        self._model_of = model_of
        self._rng = rng
        self._clients = Clients(options.rate)
        self._client: Any = None
        self._processor: sentry_otlp.SentryProcessor | None = None
        self._unlink: Callable[[], None] = _nothing
        self._is_installed = False
        self.mode: str = "off" if options.mode == "off" else "waiting"
        self.reset()
        if options.mode != "off":
            with guard("sentry"):
                self._start()

    def reset(self) -> None:
        """Forget every call: for a forked child."""
        self._adopting = threading.Lock()
        self._children = Children()
        self._limiter = Limiter(self._options.spans_per_second)
        self._joined: OrderedDict[str, int] = OrderedDict()
        self._writer = Writer()
        self._has_sent = False

    def reader(self) -> Callable[[None], object]:
        """What reads the context of a call; with what of Sentry's is around it, once Sentry is imported."""
        if self._options.mode == "off" or not self._is_installed:
            return self._plain
        if self._with_around is None and MODULE in sys.modules:
            self._with_around = reader(self._plain, seen=self.adopt, is_wanted=self._is_native, is_open=self._is_open)
        return self._with_around or self._plain

    def adopt(self) -> None:
        """Look at Sentry's client, if there is one that was not looked at."""
        # No waiting: a signal handler may run a model, and whoever looks already sees the same client.
        if self._options.mode == "off" or not self._adopting.acquire(blocking=False):
            return
        try:
            client = active_client()
            if client is not None and self._clients.is_new(client):
                self._take_up(client)
        finally:
            self._adopting.release()

    def keep(self, predictions: Predictions, around: Sequence[object]) -> None:
        """Keep the calls that were inside sampled transactions, for their events."""
        if not around or self.mode != "native":
            return
        with guard("sentry"):
            offset_ns = _offset_ns()
            found: Interest | None = None
            for call, parent in _parents(around).items():
                # What is made here somebody waits for: at most the spans that are sent.
                if parent.is_sampled and parent.root_id and self._children.has_room(parent.root_id):
                    found = found or interest(predictions, slowness=Slowness(), budget_s=None, confidence_floor=0.0)
                    data = data_of(predictions, found, call)
                    self._children.add(parent.root_id, child(predictions, data, call, parent, offset_ns))

    def relative(self, predictions: Predictions, around: Sequence[object]) -> Relative:
        """Gives trace and span id of Sentry's that a call belongs to, for OpenTelemetry's span to join."""
        if not around or self.mode != "native":
            return _unrelated
        inside = _parents(around)

        @functools.cache
        def relative(call: int) -> tuple[int, int] | None:
            each = around[call]
            return ids_of(each) if call in inside or self._joins(predictions, call, each) else None

        return relative

    def emit(
        self,
        predictions: Predictions,
        found: Interest,
        around: Sequence[object],
        made: Mapping[int, Any],
        relative: Relative,
        *,
        offset_ns: int,
    ) -> None:
        """Make the transactions of calls outside any, and streamed spans.

        Args:
            predictions: The calls.
            found: What is special about them.
            around: What of Sentry's was around each; empty if nothing was around any.
            made: The context of OpenTelemetry's span of each call that got one.
            relative: What `relative` gave.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        client = self._client
        if self.mode != "native" or client is None or not traces(client):
            return
        inside = _parents(around)
        # A span without a transaction is never sent by Sentry; the trace id of it is worth keeping.
        inside = {call: parent for call, parent in inside.items() if parent.root_id or parent.is_streamed}
        calls = len(predictions.errors)
        if len(inside) == calls and not streams(client):
            return
        outside = np.delete(np.arange(calls), list(inside))
        chosen = choose(outside, found, self._limiter, self._rng)
        ids = {call: _own_ids(made.get(call)) or relative(call) for call in chosen}
        if streams(client):
            within = {call: parent for call, parent in inside.items() if parent.is_sampled}
            self._writer.streamed(predictions, found, {**within, **ids}, offset_ns=offset_ns)
            self._has_sent = True
        elif chosen:
            known = {call: each for call, each in ids.items() if each}
            self._writer.transactions(predictions, found, known, chosen, offset_ns=offset_ns)
            self._has_sent = True

    def export_spans(self, provider: Any, *, is_own: bool) -> None:
        """In `otlp` mode, send the spans of `provider` to Sentry; of a host's own provider all that it samples."""
        client = self._client
        if self.mode != "otlp" or sentry_otlp.has_integration(client) or not hasattr(provider, "add_span_processor"):
            return
        ratio = self._options.rate if is_own else 1.0
        self._processor = sentry_otlp.SentryProcessor(
            client.options["dsn"], ratio=ratio, is_on=lambda: self.mode == "otlp"
        )
        provider.add_span_processor(self._processor)

    def flush(self, timeout_s: float) -> None:
        """Send what Sentry's client holds of ours."""
        with guard("sentry"):
            if self._processor is not None:
                self._processor.force_flush(max(0, int(timeout_s * 1000)))
            if self._has_sent and timeout_s > 0 and self._client is not None:
                self._has_sent = False
                self._client.flush(timeout=timeout_s)

    def close(self, timeout_s: float) -> None:
        """Put everything back."""
        self.flush(timeout_s)
        with guard("sentry"):
            self.mode = "off"
            _stop_processing_for(self)
            self._unlink()
            if self._processor is not None:
                self._processor.shutdown()
            self._clients.restore(max(0.0, timeout_s))
            self._client = None

    def process(self, event: Any, hint: Any) -> Any:
        """Sentry's event, with what is ours in it."""
        if event.get("type") == "transaction":
            if self.mode == "native":
                self._fill(event)
        elif event.get("type") is None and "exception" in event:
            sentry_errors.tag(event, (hint.get("exc_info") or (None, None))[1], self._model_of)
            if self.mode == "native":
                sentry_errors.link(event, is_in_span=self._is_in_span())
        elif event.get("type") is None and self.mode == "native":
            sentry_errors.link(event, is_in_span=self._is_in_span())
        return event

    def _start(self) -> None:
        self._is_installed = importlib.util.find_spec("sentry_sdk") is not None
        if not self._is_installed and (self._options.dsn or self._options.mode != "auto"):
            _LOG.warning(INSTALL)
        dsn = self._options.dsn or os.environ.get("SENTRY_DSN", "").strip()
        if self._is_installed and dsn and active_client() is None:
            is_native = self._options.mode != "otlp" or not sentry_otlp.is_available()
            self._clients.initialise(dsn, self._options.rate or None if is_native else None)
        self.adopt()

    def _take_up(self, client: Any) -> None:
        self._client = client
        _process_events_for(self)
        if self._options.mode == "otlp" and not self._refuses(client):
            self.mode = "otlp"
            if not sentry_otlp.has_integration(client):
                self._unlink = sentry_otlp.link_errors()
            return
        self._unlink()
        self._clients.raise_rate(client)
        self.mode = "native"

    def _refuses(self, client: Any) -> bool:
        if not sentry_otlp.is_available():
            _LOG.warning(sentry_otlp.TOO_OLD)
            return True
        if not sentry_otlp.has_rate(client):
            return False
        _LOG.warning(
            "sentry='otlp' is refused: Sentry's client has a traces_sample_rate or a traces_sampler, with which errors "
            "link to the wrong trace. Leave both out of sentry_sdk.init() to use it; sentry='native' is used instead."
        )
        return True

    def _joins(self, predictions: Predictions, call: int, around: object) -> bool:
        """Whether a call outside any span joins the trace that Sentry has for its thread."""
        if not isinstance(around, tuple) or _own_ids(predictions.contexts[call]):
            return False
        trace_id = around[0]
        joined = self._joined.pop(trace_id, 0) + 1
        self._joined[trace_id] = joined
        if len(self._joined) > MAX_JOINED:
            self._joined.popitem(last=False)
        return bool(predictions.errors[call]) or joined <= JOINED

    def _fill(self, event: Any) -> None:
        """Add the child spans of a transaction to its event."""
        context = (event.get("contexts") or {}).get("trace") or {}
        root_id, spans = str(context.get("span_id")), event.get("spans")
        if not self._children.is_expected(root_id):
            return
        self._catch_up(CATCH_UP_S)
        more = self._children.take(root_id)
        if isinstance(spans, list):
            spans.extend(more)

    def _is_native(self) -> bool:
        return self.mode == "native"

    def _is_open(self, span: Any) -> bool:
        """Whether a call that finds `span` active is inside it; if its transaction is sampled, that waits for the call.

        A thread of a pool keeps the span of whoever started it. Asked at the call: clocks compared later differ.
        """
        transaction = getattr(span, "containing_transaction", None)
        if transaction is not None:
            if transaction.timestamp is not None:
                return False
            if transaction.sampled:
                self._children.expect(transaction.span_id)
        return True

    def _is_in_span(self) -> bool:
        import sentry_sdk

        scope = sentry_sdk.get_current_scope()
        span = scope.span or getattr(scope, "streamed_span", None)
        return span is not None and self._client is not None and traces(self._client)


def _parents(around: Sequence[object]) -> dict[int, Parent]:
    """The span that each call was inside; calls of one request share it, so it is understood once."""
    if set(map(type, around)) <= _OUTSIDE:
        return {}
    found: dict[int, Parent] = {}
    last: object = None
    parent: Parent | None = None
    for call, each in enumerate(around):
        if each is not last:
            last, parent = each, parent_of(each)
        if parent is not None:
            found[call] = parent
    return found


def _unrelated(_: int) -> None:
    """No call belongs to anything of Sentry's."""


def _nothing() -> None:
    """Nothing to undo."""


def _offset_ns() -> int:
    return time.time_ns() - time.perf_counter_ns()


def _own_ids(context: Any) -> tuple[int, int] | None:
    """Trace and span id of OpenTelemetry's span."""
    if context is None:
        return None
    found = trace.get_current_span(context).get_span_context()
    return (found.trace_id, found.span_id) if found.is_valid else None


class _Processing:
    """Sentry has no way to take a global event processor off again, so there is one for good, for whoever is active."""

    current: weakref.ReferenceType[Sentry] | None = None
    is_registered = False


def _process_events_for(active: Sentry) -> None:
    from sentry_sdk.scope import add_global_event_processor

    _Processing.current = weakref.ref(active)
    if not _Processing.is_registered:
        _Processing.is_registered = True
        add_global_event_processor(_process)


def _stop_processing_for(active: Sentry) -> None:
    if _Processing.current is not None and _Processing.current() is active:
        _Processing.current = None


def _process(event: Any, hint: Any) -> Any:
    active = _Processing.current() if _Processing.current is not None else None
    if active is not None:
        with guard("sentry"):
            active.process(event, hint)
    return event
