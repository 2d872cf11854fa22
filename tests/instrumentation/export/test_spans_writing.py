from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.call_sampler import CallSample, prioritize_calls
from otel_mlmon.instrumentation.export.error_tracker import SpanIds
from otel_mlmon.instrumentation.export.spans import SpanWriter

HOST: Final = SpanContext(trace_id=7, span_id=8, is_remote=False, trace_flags=TraceFlags(1))
TRACKER: Final[SpanIds] = (21, 22)
START_NS: Final = 1_000


def within(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def write(
    contexts: Sequence[object],
    *,
    related: Mapping[int, SpanIds] | None = None,
    errors: Sequence[str | None] | None = None,
    sampler: Sampler = ALWAYS_ON,
    ratio: float = 1.0,
) -> tuple[list[ReadableSpan], dict[int, Context]]:
    """The spans of calls of 5 ns, one after the other, and the contexts that `write_spans` returns."""
    calls = len(contexts)
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    predictions = Predictions(
        model=ModelIdentity(name="m", version="", provider="", runtime_version=""),
        operation="run",
        started_ns=np.arange(calls, dtype=np.int64) * 10,
        duration_ns=np.full(calls, 5, dtype=np.int64),
        contexts=list(contexts),
        errors=list(errors or [None] * calls),
        batch_sizes=np.ones(calls, dtype=np.int64),
    )
    writer = SpanWriter(provider, ratio=ratio, rng=random.Random(1))
    priorities = prioritize_calls(predictions)
    candidates = writer.find_span_candidates(predictions, priorities)
    span_contexts = writer.write_spans(
        predictions,
        priorities,
        candidates.with_sampled_parent,
        {call: CallSample("share", 0.5) for call in np.flatnonzero(candidates.may_be_chosen).tolist()},
        offset_ns=START_NS,
        related_spans=related.get if related else None,
    )
    return list(exporter.get_finished_spans()), span_contexts


def ids(context: SpanContext | None) -> tuple[int, int, bool] | None:
    return None if context is None else (context.trace_id, context.span_id, context.is_remote)


def test_a_call_outside_any_trace_becomes_a_child_of_the_error_trackers_span() -> None:
    (span,), _ = write([Context()], related={0: TRACKER})
    assert (ids(span.parent), span.context.trace_id, span.links) == ((*TRACKER, True), TRACKER[0], ())


def test_a_call_within_a_trace_keeps_its_parent_and_is_linked_to_the_span_of_another_trace() -> None:
    (span,), _ = write([within(HOST)], related={0: TRACKER})
    assert ids(span.parent) == (HOST.trace_id, HOST.span_id, False)
    assert [ids(link.context) for link in span.links] == [(*TRACKER, True)]


def test_a_span_of_the_same_trace_is_not_linked() -> None:
    (span,), _ = write([within(HOST)], related={0: (HOST.trace_id, TRACKER[1])})
    assert (ids(span.parent), span.links) == ((HOST.trace_id, HOST.span_id, False), ())


@pytest.mark.parametrize(("sampler", "spans"), [(ALWAYS_OFF, 0), (ALWAYS_ON, 1)])
def test_the_error_trackers_span_does_not_overrule_the_sampler_for_roots(sampler: Sampler, spans: int) -> None:
    assert len(write([Context()], related={0: TRACKER}, sampler=ParentBased(sampler))[0]) == spans


@pytest.mark.parametrize(
    ("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 420, 580), (0.75, 1_420, 1_580), (1.0, 2_000, 2_000)]
)
def test_the_ratio_is_the_share_of_calls_outside_any_trace_with_a_span(ratio: float, least: int, most: int) -> None:
    # The bounds are four standard deviations from the mean or more.
    assert least <= len(write([Context()] * 2_000, ratio=ratio)[0]) <= most


def test_of_calls_within_a_trace_those_whose_parent_is_sampled_have_a_span_whatever_the_ratio() -> None:
    unsampled = SpanContext(trace_id=9, span_id=10, is_remote=False, trace_flags=TraceFlags(0))
    spans, contexts = write([within(HOST), within(unsampled), Context()], ratio=0.0)
    assert [ids(span.parent) for span in spans] == [(HOST.trace_id, HOST.span_id, False)]
    assert list(contexts) == [0]


def test_calls_without_a_related_span_are_roots_and_have_their_own_times_and_outcome() -> None:
    spans, contexts = write([Context(), Context()], related={1: TRACKER}, errors=[None, "ValueError"])
    assert [(span.start_time, span.end_time) for span in spans] == [(1_000, 1_005), (1_010, 1_015)]
    assert [span.status.status_code for span in spans] == [StatusCode.UNSET, StatusCode.ERROR]
    assert [ids(span.parent) for span in spans] == [None, (*TRACKER, True)]
    assert [trace.get_current_span(contexts[call]).get_span_context() for call in (0, 1)] == [
        span.context for span in spans
    ]


def test_a_call_in_no_trace_says_why_and_how_likely_it_was_chosen_and_one_of_a_sampled_parent_does_not() -> None:
    spans, _ = write([within(HOST), *[Context()] * 40], errors=[None, "ValueError", *[None] * 39], ratio=0.5)
    attributes = [dict(span.attributes or {}) for span in spans]
    found = {
        (span.get("error.type"), span.get("ml.sampling.reason"), span.get("ml.sampling.probability"))
        for span in attributes
    }
    assert found == {(None, None, None), ("ValueError", "share", 0.5), (None, "share", 0.25)}


def test_calls_that_join_one_trace_are_not_sampled_together() -> None:
    calls = 400
    spans, _ = write(
        [Context()] * calls,
        related=dict.fromkeys(range(calls), TRACKER),
        sampler=ParentBased(TraceIdRatioBased(0.5)),
    )
    assert 140 <= len(spans) <= 260
    assert {span.context.trace_id for span in spans} == {TRACKER[0]}
