"""Spans made behind, with the context of the call and its true start and end.

A span of a sampled parent is always made, of an unsampled one never. A call outside any trace gets one by ratio, and
beyond it when it failed, was slow or unsure: what a sampler at the start of a call cannot know. The provider's own
sampler has the last word.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
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
from otel_mlmon.instrumentation.export.sampling import Interest, Limiter, attributes_of, choose
from otel_mlmon.instrumentation.queue.worker import give_way
from otel_mlmon.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler


class Spans:
    """Makes `predict {ml.model.name}` spans.

    Runs on: the thread behind.

    Args:
        provider: Whose tracer is used.
        ratio: Share of calls outside any trace that get a span, within [0, 1].
        limiter: How many of those a second.
        rng: Our own source of randomness: the host's state is not touched.
        tell: Given the calls of a batch, what is special about them, the contexts of the spans made of them, and Unix
            time minus `time.perf_counter_ns`.
    """

    def __init__(
        self,
        provider: TracerProvider,
        *,
        ratio: float,
        limiter: Limiter,
        rng: random.Random,
        tell: Callable[[Predictions, Interest, Mapping[int, Context], int], None] = lambda *_: None,
    ) -> None:
        self._tracer = provider.get_tracer(semconv.SCOPE, __version__)
        self._sampler: Sampler | None = getattr(provider, "sampler", None)
        self._ratio = ratio
        self._limiter = limiter
        self._rng = rng
        self._tell = tell

    def emit(
        self,
        predictions: Predictions,
        found: Interest,
        *,
        offset_ns: int,
        relative: Callable[[int], tuple[int, int] | None] = lambda _: None,
    ) -> dict[int, Context]:
        """Make the spans of a batch; the context of each call that got one.

        Args:
            predictions: The calls.
            found: What is special about them.
            offset_ns: Unix time minus `time.perf_counter_ns`.
            relative: Trace and span id of another tracer's span that a call was in: its parent if it is outside any
                trace of OpenTelemetry's, else a link.
        """
        within: list[int] = []
        wanted = found.any | self._by_ratio(len(predictions.contexts))
        for call, context in enumerate(predictions.contexts if any(predictions.contexts) else ()):
            if not context:
                continue
            parent = trace.get_current_span(cast("Context", context)).get_span_context()
            if parent.is_valid:
                wanted[call] = False
                if parent.trace_flags.sampled:
                    within.append(call)
        chosen = within + choose(np.flatnonzero(wanted), found, self._limiter, self._rng)
        made = {call: self._make(predictions, found, call, offset_ns, relative(call)) for call in sorted(chosen)}
        self._tell(predictions, found, made, offset_ns)
        return made

    def _related(self, context: Context, relative: tuple[int, int], name: str) -> tuple[Context, list[Link]]:
        """The context to make a span in, and its links, given another tracer's span."""
        trace_id, span_id = relative
        own = trace.get_current_span(context).get_span_context()
        if own.is_valid:
            other = SpanContext(trace_id, span_id, is_remote=True)
            return context, [] if own.trace_id == trace_id else [Link(other)]
        # A remote parent that is sampled would overrule the sampler that the host has for roots: it is asked first.
        decision = self._sampler.should_sample(None, trace_id, name, SpanKind.INTERNAL) if self._sampler else None
        is_sampled = decision is None or decision.decision.is_sampled()  # type: ignore[no-untyped-call]
        parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(is_sampled)))
        return trace.set_span_in_context(NonRecordingSpan(parent), context), []

    def _by_ratio(self, calls: int) -> NDArray[np.bool_]:
        if self._ratio in {0.0, 1.0}:
            return np.full(calls, bool(self._ratio))
        drawn = np.frombuffer(self._rng.randbytes(8 * calls), dtype=np.uint64)
        return np.asarray(drawn < self._ratio * 2.0**64)

    def _make(
        self, predictions: Predictions, found: Interest, call: int, offset_ns: int, relative: tuple[int, int] | None
    ) -> Context:
        model = predictions.model
        context = cast("Context", predictions.contexts[call])
        links: list[Link] = []
        if relative is not None:
            context, links = self._related(context, relative, f"predict {model.name}")
        start_ns = int(predictions.started_ns[call]) + offset_ns
        span = self._tracer.start_span(
            f"predict {model.name}",
            context=context,
            kind=SpanKind.INTERNAL,
            attributes={
                **attributes_of(predictions, found, call),
                **model.runtime_attributes(),
                semconv.OPERATION_NAME: predictions.operation,
            },
            start_time=start_ns,
            links=links,
            record_exception=False,
        )
        if found.failed[call]:
            span.set_status(Status(StatusCode.ERROR))
        span.end(start_ns + int(predictions.duration_ns[call]))
        give_way()
        return trace.set_span_in_context(span, context)
