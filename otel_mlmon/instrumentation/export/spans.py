"""Writes the spans of inference calls, in the trace that each call belongs to.

A span is made after the fact, with the context of the call and its true start and end. A span of a sampled parent is
always made, of an unsampled one never. A call outside any trace may get one by ratio, and beyond it when it failed,
was slow or unsure: what a sampler at the start of a call cannot know. Which of these do is the choice of
`call_sampler`. The provider's own sampler has the last word.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from opentelemetry import context as context_api
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
from otel_mlmon.instrumentation.decode.predictions import (
    InputSummary,
    Predictions,
    build_span_attributes,
    describe_call,
)
from otel_mlmon.instrumentation.export.call_sampler import (
    CallPriorities,
    CallSample,
    Samples,
    build_sampling_attributes,
)
from otel_mlmon.instrumentation.export.error_tracker import RelatedSpans, SpanIds
from otel_mlmon.instrumentation.queue.call_queue import yield_interpreter
from otel_mlmon.internal_events import JOURNAL, RecordsDropped
from otel_mlmon.types import Bools
from otel_mlmon.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

MAX_CALLS: Final = 65_536
"""The largest number of waiting calls, while an exporter of the host blocks."""

MIN_BATCH_WEIGHT: Final = 64
"""The smallest weight of a batch in calls, so that at most 1,024 batches wait."""

_PLAIN_KEY: Final = "suppress_instrumentation"
"""The key by which libraries suppress instrumentation. Source: opentelemetry.instrumentation.utils."""

EMPTY_CONTEXT: Final = Context()
"""The context of a call outside any trace."""

UNTRACED_CONTEXT: Final = trace.set_span_in_context(trace.INVALID_SPAN, EMPTY_CONTEXT)
"""The same for the SDK's instruments, which take an empty context for none and read the thread's own: `flush` runs on a
thread of the host's, within its spans."""


class SpanBatch(NamedTuple):
    """Holds a batch of inference calls whose spans and events are yet to be written."""

    predictions: Predictions
    """The predictions of the calls, without values, items and inputs, which no span carries."""
    tracker_contexts: Sequence[object]
    """The error tracker's own context around each call; empty if no call had one."""


class SpanQueue:
    """Queues batches of inference calls until the metrics count them and their spans can be written.

    In this order, since a span's exemplar goes to a metric that holds its call.

    No lock: a signal handler may end a transaction of Sentry's, which pushes here too. Each counter has one writer.

    Runs on: `push_uncounted_batch` and `pop_uncounted_batches` on one thread at a time; `push_ready_batches` and
    `pop_ready_batch` likewise, beside them.
    """

    def __init__(self) -> None:
        self._uncounted: deque[SpanBatch] = deque()
        self._ready: deque[SpanBatch] = deque()
        self._pushed_weight = 0
        self._dropped_weight = 0
        self._popped_weight = 0
        self.dropped_batches = 0
        """Number of batches dropped, the oldest first, since too many waited."""

    def push_uncounted_batch(self, predictions: Predictions, tracker_contexts: Sequence[object]) -> None:
        """Queues a batch that the metrics do not count yet; drops the oldest batches if too many calls wait."""
        batch = SpanBatch(
            dataclasses.replace(predictions, values={}, items={}, inputs=InputSummary()), tracker_contexts
        )
        self._uncounted.append(batch)
        self._pushed_weight += _weigh_batch(batch)
        while self._pushed_weight - self._dropped_weight - self._popped_weight > MAX_CALLS:
            oldest = _pop_first_batch(self._ready) or _pop_first_batch(self._uncounted)
            if oldest is None:
                return
            self._dropped_weight += _weigh_batch(oldest)
            self.dropped_batches += 1
            JOURNAL.emit_event(RecordsDropped(reason="exporter_blocked", count=len(oldest.predictions.errors)))

    def pop_uncounted_batches(self) -> Iterable[SpanBatch]:
        """Removes and returns the batches queued since the last call, which the metrics do not count yet."""
        batches, self._uncounted = self._uncounted, deque()
        return batches

    def push_ready_batches(self, batches: Iterable[SpanBatch]) -> None:
        """Queues batches of inference calls that the metrics count now, so that their spans can be written."""
        self._ready.extend(batches)

    def pop_ready_batch(self) -> SpanBatch | None:
        """Removes and returns the oldest batch whose spans may be written; None if there is none."""
        batch = _pop_first_batch(self._ready)
        if batch is not None:
            self._popped_weight += _weigh_batch(batch)
        return batch


class SpanCandidates(NamedTuple):
    """Says which inference calls of a batch may get a span, and which always get one."""

    may_be_chosen: Bools
    """Shape (n,): calls outside any trace."""
    with_sampled_parent: Sequence[int]
    """Positions of the calls that always get one."""


class SpanWriter:
    """Writes a span `predict {ml.model.name}` for inference calls.

    Runs on: the worker thread.

    Args:
        provider: Whose tracer is used.
        ratio: Share of calls outside any trace that may get a span, within [0, 1].
        rng: Our own source of randomness: the host's state is not touched.
    """

    def __init__(self, provider: TracerProvider, *, ratio: float, rng: random.Random) -> None:
        self._tracer = provider.get_tracer(semconv.SCOPE, __version__)
        self._sampler: Sampler | None = getattr(provider, "sampler", None)
        self._ratio = ratio
        self._rng = rng

    def find_span_candidates(self, predictions: Predictions, priorities: CallPriorities) -> SpanCandidates:
        """Returns which calls may get a span: a share of all, and all that failed, were slow or unsure."""
        sampled_calls: list[int] = []
        may_be_chosen = priorities.is_priority | self._draw_calls_by_ratio(len(predictions.contexts))
        for call, context in enumerate(predictions.contexts if any(predictions.contexts) else ()):
            if not context:
                continue
            parent = trace.get_current_span(cast("Context", context)).get_span_context()
            if parent.is_valid:
                may_be_chosen[call] = False
                if parent.trace_flags.sampled:
                    sampled_calls.append(call)
        return SpanCandidates(may_be_chosen, sampled_calls)

    def write_spans(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        with_sampled_parent: Sequence[int],
        samples: Samples,
        *,
        offset_ns: int,
        related_spans: RelatedSpans | None = None,
    ) -> dict[int, Context]:
        """Writes the spans of a batch of inference calls, and returns their contexts by call.

        Args:
            predictions: The calls.
            priorities: Their confidences.
            with_sampled_parent: Positions of the calls whose parent is sampled.
            samples: The calls outside any trace that were chosen.
            offset_ns: Unix time minus `time.perf_counter_ns`.
            related_spans: The error tracker's span that a call belongs to: the parent of its span if it is outside any
                trace of OpenTelemetry's, else a link. None if no call has one.

        Returns:
            The context of the span, by call, of the calls that got one.
        """
        contexts: dict[int, Context] = {}
        for call in sorted([*with_sampled_parent, *samples]):
            sample = samples.get(call)
            if sample is not None and not priorities.is_priority[call]:
                sample = sample._replace(probability=sample.probability * self._ratio)
            related_span = related_spans(call) if related_spans else None
            contexts[call] = self._write_span(predictions, priorities, call, sample, offset_ns, related_span)
        return contexts

    def _draw_calls_by_ratio(self, calls: int) -> Bools:
        if self._ratio in {0.0, 1.0}:
            return np.full(calls, bool(self._ratio))
        draws = np.frombuffer(self._rng.randbytes(8 * calls), dtype=np.uint64)
        return np.asarray(draws < self._ratio * 2.0**64)

    def _write_span(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        call: int,
        sample: CallSample | None,
        offset_ns: int,
        related_span: SpanIds | None,
    ) -> Context:
        name = f"predict {predictions.model.name}"
        context = cast("Context", predictions.contexts[call])
        links: list[Link] = []
        if related_span is not None:
            context, links = self._relate_to_tracker_span(context, related_span, name)
        start_ns = int(predictions.started_ns[call]) + offset_ns
        span = self._tracer.start_span(
            name,
            context=context,
            kind=SpanKind.INTERNAL,
            attributes=build_span_attributes(describe_call(predictions, priorities, call))
            | build_sampling_attributes(sample),
            start_time=start_ns,
            links=links,
            record_exception=False,
        )
        if priorities.failed[call]:
            span.set_status(Status(StatusCode.ERROR))
        span.end(start_ns + int(predictions.duration_ns[call]))
        yield_interpreter()
        return trace.set_span_in_context(span, context)

    def _relate_to_tracker_span(self, context: Context, related_span: SpanIds, name: str) -> tuple[Context, list[Link]]:
        """Makes an error tracker's span the parent of a span, or a link if the span has a parent already."""
        trace_id, span_id = related_span
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid:
            linked = SpanContext(trace_id, span_id, is_remote=True)
            return context, [] if parent.trace_id == trace_id else [Link(linked)]
        # A remote parent that is sampled would overrule the sampler that the host has for roots: it is asked first.
        # One that has no other source of chance than the trace id is asked about another one, else it would decide on
        # all calls of the trace at once; what is no `ParentBased` decides by itself on the span.
        sampler, asked_id = self._sampler, trace_id
        if _is_parent_based_sampler(sampler):
            asked_id = self._rng.getrandbits(128) or 1
        decision = sampler.should_sample(None, asked_id, name, SpanKind.INTERNAL) if sampler else None
        is_sampled = decision is None or decision.decision.is_sampled()  # type: ignore[no-untyped-call]
        remote_parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(is_sampled)))
        return trace.set_span_in_context(NonRecordingSpan(remote_parent), context), []


def make_context_reader() -> Callable[[None], object]:
    """Returns a function that reads the current OpenTelemetry context, cheaply where none was ever attached.

    It is the bound `get` of the variable behind the API, 0.02 µs, where `get_current` takes 0.15. The variable is
    private, so it is used only if it gives the very context that was attached by the API.
    """
    variable = getattr(getattr(context_api, "_RUNTIME_CONTEXT", None), "_current_context", None)
    if isinstance(variable, ContextVar) and copy_context().run(_is_current_context_variable, variable):
        return variable.get
    return lambda absent: context_api.get_current() or absent


def _is_current_context_variable(variable: ContextVar[object]) -> bool:
    probe = Context({"otel_mlmon": "probe"})
    token = context_api.attach(probe)
    try:
        return variable.get(None) is probe
    finally:
        context_api.detach(token)


def read_otel_context(captured: object) -> object:
    """Returns OpenTelemetry's part of a captured context; `EMPTY_CONTEXT` if it has none.

    A captured context is OpenTelemetry's, which is never a tuple, or None, or a pair of it and an error tracker's own.
    """
    return (captured[0] if type(captured) is tuple else captured) or EMPTY_CONTEXT


def is_call_suppressed(captured: object) -> bool:
    """Returns whether the application had suppressed instrumentation around an inference call."""
    captured = read_otel_context(captured)
    # Asked of every call of a host with Sentry: an isinstance check against an abstract class is slow.
    if captured is EMPTY_CONTEXT or not isinstance(captured, Mapping):
        return False
    key = getattr(context_api, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY)
    return bool(captured.get(key) or captured.get(_PLAIN_KEY))


def split_contexts(captured: Sequence[object]) -> tuple[Sequence[object], Sequence[object]]:
    """Splits the captured contexts of calls into OpenTelemetry's and the error tracker's."""
    if not any(captured):
        return [EMPTY_CONTEXT] * len(captured), ()
    kinds = set(map(type, captured))
    if tuple not in kinds:
        return list(map(read_otel_context, captured)), ()
    pairs: Any = captured if len(kinds) == 1 else [pair if type(pair) is tuple else (pair, None) for pair in captured]
    contexts, tracker_contexts = zip(*pairs, strict=True)
    return [own or EMPTY_CONTEXT for own in contexts], list(tracker_contexts)


def _is_parent_based_sampler(sampler: object) -> bool:
    module = sys.modules.get("opentelemetry.sdk.trace.sampling")
    return module is not None and isinstance(sampler, module.ParentBased)


def _weigh_batch(batch: SpanBatch) -> int:
    return max(len(batch.predictions.errors), MIN_BATCH_WEIGHT)


def _pop_first_batch(batches: deque[SpanBatch]) -> SpanBatch | None:
    try:
        return batches.popleft()
    except IndexError:
        return None
