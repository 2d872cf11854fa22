"""Spans of calls, made after the fact with the context of the call and its true start and end.

A span of a sampled parent is always made, of an unsampled one never. A call outside any trace gets one by ratio, and
beyond it when it failed, was slow or unsure: what a sampler at the start of a call cannot know. The provider's own
sampler has the last word.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

import numpy as np
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
)

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.error_tracker import RelatedSpans, SpanIds
from otel_mlmon.instrumentation.export.sampling import CallPriorities, RateLimiter, select_calls, span_attributes
from otel_mlmon.instrumentation.queue.worker import give_way
from otel_mlmon.types import Bools
from otel_mlmon.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler


class SpanWriter:
    """Writes `predict {ml.model.name}` spans.

    Runs on: the thread behind.

    Args:
        provider: Whose tracer is used.
        ratio: Share of calls outside any trace that get a span, within [0, 1].
        limiter: How many of those a second.
        rng: Our own source of randomness: the host's state is not touched.
    """

    def __init__(self, provider: TracerProvider, *, ratio: float, limiter: RateLimiter, rng: random.Random) -> None:
        self._tracer = provider.get_tracer(semconv.SCOPE, __version__)
        self._sampler: Sampler | None = getattr(provider, "sampler", None)
        self._ratio = ratio
        self._limiter = limiter
        self._rng = rng

    def write(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        *,
        offset_ns: int,
        related_spans: RelatedSpans | None = None,
    ) -> dict[int, Context]:
        """Writes the spans of a batch.

        Args:
            predictions: The calls.
            priorities: Which calls outside any trace come first.
            offset_ns: Unix time minus `time.perf_counter_ns`.
            related_spans: The error tracker's span that a call belongs to: the parent of its span if it is outside any
                trace of OpenTelemetry's, else a link. None if no call has one.

        Returns:
            The context of the span, by call, of the calls that got one.
        """
        sampled_calls: list[int] = []
        is_candidate = priorities.is_priority | self._draw_by_ratio(len(predictions.contexts))
        for call, context in enumerate(predictions.contexts if any(predictions.contexts) else ()):
            if not context:
                continue
            parent = trace.get_current_span(cast("Context", context)).get_span_context()
            if parent.is_valid:
                is_candidate[call] = False
                if parent.trace_flags.sampled:
                    sampled_calls.append(call)
        sampled_calls += select_calls(np.flatnonzero(is_candidate), priorities, self._limiter, self._rng)
        return {
            call: self._write_span(
                predictions, priorities, call, offset_ns, related_spans(call) if related_spans else None
            )
            for call in sorted(sampled_calls)
        }

    def _draw_by_ratio(self, calls: int) -> Bools:
        if self._ratio in {0.0, 1.0}:
            return np.full(calls, bool(self._ratio))
        draws = np.frombuffer(self._rng.randbytes(8 * calls), dtype=np.uint64)
        return np.asarray(draws < self._ratio * 2.0**64)

    def _write_span(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        call: int,
        offset_ns: int,
        related_span: SpanIds | None,
    ) -> Context:
        name = f"predict {predictions.model.name}"
        context = cast("Context", predictions.contexts[call])
        links: list[Link] = []
        if related_span is not None:
            context, links = self._relate(context, related_span, name)
        start_ns = int(predictions.started_ns[call]) + offset_ns
        span = self._tracer.start_span(
            name,
            context=context,
            kind=SpanKind.INTERNAL,
            attributes=span_attributes(predictions, priorities, call),
            start_time=start_ns,
            links=links,
            record_exception=False,
        )
        if priorities.failed[call]:
            span.set_status(Status(StatusCode.ERROR))
        span.end(start_ns + int(predictions.duration_ns[call]))
        give_way()
        return trace.set_span_in_context(span, context)

    def _relate(self, context: Context, related_span: SpanIds, name: str) -> tuple[Context, list[Link]]:
        """Makes another tracer's span the parent of a span in `context`, or a link where it has a parent."""
        trace_id, span_id = related_span
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid:
            linked = SpanContext(trace_id, span_id, is_remote=True)
            return context, [] if parent.trace_id == trace_id else [Link(linked)]
        # A remote parent that is sampled would overrule the sampler that the host has for roots: it is asked first.
        decision = self._sampler.should_sample(None, trace_id, name, SpanKind.INTERNAL) if self._sampler else None
        is_sampled = decision is None or decision.decision.is_sampled()  # type: ignore[no-untyped-call]
        remote_parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(is_sampled)))
        return trace.set_span_in_context(NonRecordingSpan(remote_parent), context), []
