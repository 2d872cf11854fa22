"""Sentry's spans and transactions of inference calls, made behind.

A call inside a sampled transaction becomes a child span: kept here, and put into the transaction's event when that is
captured, since a finished transaction takes no more children. The host's thread pays for a look at the active span, not
for a span. A call outside any becomes a transaction of its own, by the rate that Sentry's client has. With streamed
spans, which Sentry takes at any time, both are made behind.

Source: develop.sentry.dev, SDK, Event Payloads, Span and Transaction.
Choice: `op` is `ml.predict`. Sentry's list of operations has none for classic models, and `ai.*` or `gen_ai.*` would
put them among the language models, with tokens and costs.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any, Final

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.sampling import Interest, attributes_of
from otel_mlmon.instrumentation.sentry.scope import Parent

OP: Final = "ml.predict"
ORIGIN: Final = "auto.ml.otel_mlmon"
"""Source: develop.sentry.dev, SDK, Trace Origin."""

FAILED: Final = "internal_error"
MAX_SPANS: Final = 1000
"""Children of one transaction, as many as Sentry's own limit."""

MAX_TRANSACTIONS: Final = 256
"""Unfinished transactions whose children are kept; beyond it the oldest is forgotten."""


class Children:
    """The child spans of transactions that are not captured yet.

    Runs on: any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        self._expected: set[str] = set()

    def expect(self, root_id: str) -> None:
        """Note that a call was inside that transaction. Takes no lock: a signal handler may run a model."""
        expected = self._expected
        expected.add(root_id)
        if len(expected) > 16 * MAX_TRANSACTIONS:
            expected.clear()  # transactions that never end

    def is_expected(self, root_id: str) -> bool:
        """Whether calls were inside that transaction."""
        return root_id in self._expected

    def has_room(self, root_id: str) -> bool:
        """Whether that transaction takes another span."""
        return len(self._of.get(root_id, ())) < MAX_SPANS

    def add(self, root_id: str, span: dict[str, Any]) -> None:
        """Keep `span` for the transaction of that span id."""
        with self._lock:
            if self.has_room(root_id):
                self._of.setdefault(root_id, []).append(span)
            if len(self._of) > MAX_TRANSACTIONS:
                self._of.popitem(last=False)

    def take(self, root_id: str) -> list[dict[str, Any]]:
        """The spans of that transaction, once."""
        self._expected.discard(root_id)
        with self._lock:
            return self._of.pop(root_id, [])


def child(
    predictions: Predictions, data: Mapping[str, Any], call: int, parent: Parent, offset_ns: int
) -> dict[str, Any]:
    """The span of one call as Sentry's protocol has it."""
    started, ended = times(predictions, call, offset_ns)
    return {
        "trace_id": parent.trace_id,
        "span_id": uuid.uuid4().hex[16:],
        "parent_span_id": parent.span_id,
        "same_process_as_parent": True,
        "op": OP,
        "description": f"predict {predictions.model.name}",
        "start_timestamp": started,
        "timestamp": ended,
        "origin": ORIGIN,
        "status": FAILED if predictions.errors[call] else "ok",
        "data": dict(data),
    }


def data_of(predictions: Predictions, found: Interest, call: int) -> dict[str, str | int | float]:
    """What a span says of one call: the attributes of OpenTelemetry's."""
    model = predictions.model
    return {
        **attributes_of(predictions, found, call),
        **model.runtime_attributes(),
        semconv.OPERATION_NAME: predictions.operation,
    }


def times(predictions: Predictions, call: int, offset_ns: int) -> tuple[datetime, datetime]:
    """When the call began and ended."""
    start_ns = int(predictions.started_ns[call]) + offset_ns
    end_ns = start_ns + int(predictions.duration_ns[call])
    return datetime.fromtimestamp(start_ns / 1e9, timezone.utc), datetime.fromtimestamp(end_ns / 1e9, timezone.utc)


class Writer:
    """Makes transactions, and streamed spans.

    Runs on: the thread behind.
    """

    def transactions(
        self,
        predictions: Predictions,
        found: Interest,
        ids: Mapping[int, tuple[int, int]],
        calls: Sequence[int],
        *,
        offset_ns: int,
    ) -> None:
        """A transaction of its own for each of `calls`; sampled by what Sentry's client says.

        Args:
            predictions: The calls.
            found: What is special about them.
            ids: Trace and span id that a call's transaction continues.
            calls: Which calls.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        import sentry_sdk

        with _clean_scope():
            for call in calls:
                started, ended = times(predictions, call, offset_ns)
                trace_id, parent_id = ids.get(call, (0, 0))
                related: dict[str, Any] = (
                    {"trace_id": f"{trace_id:032x}", "parent_span_id": f"{parent_id:016x}"} if trace_id else {}
                )
                made = sentry_sdk.start_transaction(
                    op=OP,
                    name=f"predict {predictions.model.name}",
                    source="task",
                    origin=ORIGIN,
                    start_timestamp=started,
                    **related,
                )
                if made.sampled:
                    for key, value in data_of(predictions, found, call).items():
                        made.set_data(key, value)
                    made.set_tag(semconv.MODEL_NAME, predictions.model.name)
                    if predictions.model.version:
                        made.set_tag(semconv.MODEL_VERSION, predictions.model.version)
                    made.set_status(FAILED if predictions.errors[call] else "ok")
                made.finish(end_timestamp=ended)

    def streamed(
        self,
        predictions: Predictions,
        found: Interest,
        around: Mapping[int, Parent | tuple[int, int] | None],
        *,
        offset_ns: int,
    ) -> None:
        """A streamed span for each call, in the span or continuing the trace and span id that it has in `around`."""
        from sentry_sdk import traces

        with _clean_scope():
            for call, parent in around.items():
                started, ended = times(predictions, call, offset_ns)
                span = None
                if isinstance(parent, Parent):
                    span = parent.span
                elif parent:
                    traces.continue_trace({"sentry-trace": f"{parent[0]:032x}-{parent[1]:016x}"})
                else:
                    traces.new_trace()
                attributes: dict[str, Any] = {
                    "sentry.op": OP,
                    "sentry.origin": ORIGIN,
                    **data_of(predictions, found, call),
                }
                made = traces.start_span(
                    f"predict {predictions.model.name}", attributes=attributes, parent_span=span, active=False
                )
                if predictions.errors[call]:
                    made.status = "error"
                if hasattr(made, "_start_timestamp"):
                    made._start_timestamp = started  # no public way: the span began before it is made
                made.end(ended)


def _clean_scope() -> ExitStack:
    """Scopes with nothing of a request's: the thread behind was started by one, and inherits its user and tags."""
    import sentry_sdk

    stack = ExitStack()
    isolation = stack.enter_context(sentry_sdk.isolation_scope())
    for scope in (isolation, sentry_sdk.get_current_scope()):
        scope.clear()
    return stack
