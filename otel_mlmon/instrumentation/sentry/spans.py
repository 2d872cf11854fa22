"""Makes Sentry's spans and transactions of inference calls, on the worker thread.

A call inside a sampled transaction becomes a child span: stored here, and put into the transaction's event when that is
captured, since a finished transaction takes no more children. The host's thread pays for a look at the active span, not
for a span. A call outside any becomes a transaction of its own, by the rate that Sentry's client has. With streamed
spans, which Sentry takes at any time, both are sent at once.

Source: develop.sentry.dev, SDK, Event Payloads, Span and Transaction.
Choice: `op` is `ml.predict`. Sentry's list of operations has none for classic models, and `ai.*` or `gen_ai.*` would
put them among the language models, with tokens and costs.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any, Final

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import (
    CallDescription,
    Predictions,
    build_span_attributes,
    describe_call,
)
from otel_mlmon.instrumentation.export.call_sampler import CallPriorities, Samples, build_sampling_attributes
from otel_mlmon.instrumentation.export.error_tracker import SpanIds
from otel_mlmon.instrumentation.sentry.scope import ParentSpan

OP: Final = "ml.predict"
ORIGIN: Final = "auto.ml.otel_mlmon"
"""Source: develop.sentry.dev, SDK, Trace Origin."""

FAILED_STATUS: Final = "internal_error"
MAX_RAND: Final = 0.999999
"""Below 1 in six digits."""

MAX_CHILD_SPANS: Final = 1000
"""Children of one transaction, as many as Sentry's own limit."""

MAX_TRANSACTIONS: Final = 256
"""Unfinished transactions whose child spans are stored; beyond it the oldest loses them."""


class ChildSpanStore:
    """Stores the spans of inference calls until the Sentry transaction that they belong to is sent.

    Runs on: any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        self._calls: dict[str, Iterator[int]] = {}
        """Counts the calls in each transaction that is not captured yet; `next` is one step of the interpreter."""

    def expect_span(self, root_id: str) -> None:
        """Notes that an inference call ran inside a Sentry transaction; takes no lock."""
        calls = self._calls.get(root_id)
        if calls is None:
            if len(self._calls) >= 16 * MAX_TRANSACTIONS:
                self._calls.clear()  # transactions that never end
            calls = self._calls.setdefault(root_id, itertools.count())
        next(calls)

    def is_span_expected(self, root_id: str) -> bool:
        """Returns whether inference calls ran inside a Sentry transaction that was not sent yet."""
        return root_id in self._calls

    def count_waiting_calls(self, root_id: str) -> tuple[int, int]:
        """Returns how many calls in a Sentry transaction have no span yet, and how many spans still fit in it.

        Asked when it is captured: asking counts as a call.
        """
        calls, spans = self._calls.get(root_id), len(self._spans.get(root_id, ()))
        return next(calls) - spans if calls is not None else 0, MAX_CHILD_SPANS - spans

    def has_span_room(self, root_id: str) -> bool:
        """Returns whether a Sentry transaction that was not sent yet takes another span."""
        return root_id in self._calls and len(self._spans.get(root_id, ())) < MAX_CHILD_SPANS

    def add_span(self, root_id: str, span: dict[str, Any]) -> None:
        """Stores the span of an inference call for the Sentry transaction that it belongs to."""
        with self._lock:
            if self.has_span_room(root_id):
                self._spans.setdefault(root_id, []).append(span)
            if len(self._spans) > MAX_TRANSACTIONS:
                self._spans.popitem(last=False)

    def pop_spans(self, root_id: str) -> list[dict[str, Any]]:
        """Removes and returns the spans stored for a Sentry transaction."""
        self._calls.pop(root_id, None)
        with self._lock:
            return self._spans.pop(root_id, [])


def build_child_span(call: CallDescription, trace_id: str, parent_id: str, offset_ns: int) -> dict[str, Any]:
    """Builds the span of one inference call in Sentry's protocol.

    Args:
        call: The call.
        trace_id: In hexadecimal, as all ids here.
        parent_id: The id of the span that the call was in.
        offset_ns: Unix time minus `time.perf_counter_ns`.
    """
    started_at, ended_at = _convert_call_times(call, offset_ns)
    return {
        "trace_id": trace_id,
        "span_id": os.urandom(8).hex(),
        "parent_span_id": parent_id,
        "same_process_as_parent": True,
        "op": OP,
        "description": f"predict {call.model.name}",
        "start_timestamp": started_at,
        "timestamp": ended_at,
        "origin": ORIGIN,
        "status": FAILED_STATUS if call.error_type else "ok",
        "data": build_span_attributes(call),
    }


def _convert_call_times(call: CallDescription, offset_ns: int) -> tuple[datetime, datetime]:
    """Returns when an inference call began and ended, as datetimes."""
    start_ns = call.started_ns + offset_ns
    end_ns = start_ns + call.duration_ns
    return datetime.fromtimestamp(start_ns / 1e9, timezone.utc), datetime.fromtimestamp(end_ns / 1e9, timezone.utc)


def send_transactions(
    predictions: Predictions,
    priorities: CallPriorities,
    samples: Samples,
    ids: Mapping[int, SpanIds | None],
    rands: Iterator[float],
    *,
    offset_ns: int,
) -> None:
    """Sends a Sentry transaction for each chosen inference call.

    Runs on: the worker thread.

    Args:
        predictions: A batch.
        priorities: The confidences of its calls.
        samples: The calls that were chosen.
        ids: By call, trace and span id that its transaction continues; without, it has a trace of its own.
        rands: Numbers within [0, 1): Sentry samples a transaction whose number is below its rate. Its own would be one
            for all transactions of a trace.
        offset_ns: Unix time minus `time.perf_counter_ns`.
    """
    import sentry_sdk

    model = predictions.model
    with _enter_clean_scopes():
        for call, sample in samples.items():
            description = describe_call(predictions, priorities, call)
            started_at, ended_at = _convert_call_times(description, offset_ns)
            pair = ids.get(call)
            parent: dict[str, Any] = (
                {"trace_id": f"{pair[0]:032x}", "parent_span_id": f"{pair[1]:016x}"} if pair else {}
            )
            transaction = sentry_sdk.start_transaction(
                op=OP,
                name=f"predict {model.name}",
                source="task",
                origin=ORIGIN,
                start_timestamp=started_at,
                baggage=_make_baggage(next(rands)),
                **parent,
            )
            if transaction.sampled:
                attributes = build_span_attributes(description) | build_sampling_attributes(sample)
                for name, value in attributes.items():
                    transaction.set_data(name, value)
                transaction.set_tag(semconv.MODEL_NAME, model.name)
                if model.version:
                    transaction.set_tag(semconv.MODEL_VERSION, model.version)
                transaction.set_status(FAILED_STATUS if description.error_type else "ok")
            transaction.finish(end_timestamp=ended_at)


def send_streamed_spans(
    predictions: Predictions,
    priorities: CallPriorities,
    samples: Samples,
    parents: Mapping[int, ParentSpan | SpanIds | None],
    rands: Iterator[float],
    *,
    offset_ns: int,
) -> None:
    """Sends a streamed Sentry span for each chosen inference call.

    Runs on: the worker thread.

    Args:
        predictions: A batch.
        priorities: The confidences of its calls.
        samples: The calls outside any span that were chosen.
        parents: By call, the span it was in, or trace and span id to continue, or None for a new trace.
        rands: See `send_transactions`.
        offset_ns: Unix time minus `time.perf_counter_ns`.
    """
    import sentry_sdk
    from sentry_sdk import traces

    with _enter_clean_scopes():
        for call, parent in parents.items():
            description = describe_call(predictions, priorities, call)
            started_at, ended_at = _convert_call_times(description, offset_ns)
            if parent is None:
                traces.new_trace()
            elif not isinstance(parent, ParentSpan):
                traces.continue_trace({"sentry-trace": f"{parent[0]:032x}-{parent[1]:016x}"})
            if not isinstance(parent, ParentSpan):
                sentry_sdk.get_current_scope().get_active_propagation_context().baggage = _make_baggage(next(rands))
            sample = samples.get(call)
            span = traces.start_span(
                f"predict {predictions.model.name}",
                attributes={
                    "sentry.op": OP,
                    "sentry.origin": ORIGIN,
                    **build_span_attributes(description),
                    **build_sampling_attributes(sample),
                },
                parent_span=parent.span if isinstance(parent, ParentSpan) else None,
                active=False,
            )
            if description.error_type:
                span.status = "error"
            if sample is not None and getattr(span, "_sample_rate", None) is not None:
                _weigh_streamed_span(span, sample.probability)
            if hasattr(span, "_start_timestamp"):
                span._start_timestamp = started_at  # no public way: the span began before it is made
            span.end(ended_at)


def _make_baggage(rand: float) -> Any:
    """Makes Sentry's baggage of a new trace, whose sampling is decided by a given random number."""
    from sentry_sdk.tracing_utils import Baggage

    return Baggage({"sample_rand": f"{min(rand, MAX_RAND):.6f}"})


def _weigh_streamed_span(span: Any, probability: float) -> None:
    """Multiplies the sample rate in a streamed Sentry span by the probability with which its call was chosen."""
    span._sample_rate *= probability  # no public way, as for its time
    if span._baggage is not None:
        span._baggage.sentry_items["sample_rate"] = str(span._sample_rate)


def _enter_clean_scopes() -> ExitStack:
    """Enters Sentry scopes without the user and tags of a request, which the worker thread has inherited."""
    import sentry_sdk

    stack = ExitStack()
    isolation = stack.enter_context(sentry_sdk.isolation_scope())
    for scope in (isolation, sentry_sdk.get_current_scope()):
        scope.clear()
    return stack
