from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.features import Inputs
from otel_mlmon.instrumentation.decode.model_identity import Model
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.span_queue import MAX_CALLS, MIN_BATCH_WEIGHT, SpanBatch, SpanQueue
from otel_mlmon.internal_events import JOURNAL


def predictions(calls: int, name: str = "m") -> Predictions:
    return Predictions(
        model=Model(name=name, version="", provider="", runtime_version=""),
        operation="run",
        started_ns=np.zeros(calls, dtype=np.int64),
        duration_ns=np.zeros(calls, dtype=np.int64),
        contexts=[None] * calls,
        errors=[None] * calls,
        batch_sizes=np.zeros(calls, dtype=np.int64),
        values={"y": np.zeros(calls)},
        inputs=Inputs(features={"f0": np.zeros(calls)}, samples=calls),
    )


def names(queue: SpanQueue) -> list[str]:
    found: list[str] = []
    while (batch := queue.pop()) is not None:
        found.append(batch.predictions.model.name)
    return found


def test_a_batch_is_taken_once_and_not_before_it_is_released() -> None:
    queue = SpanQueue()
    queue.push(predictions(1, "one"), ())
    held = queue.pop_unmeasured()
    queue.push(predictions(1, "two"), ("span",))
    assert names(queue) == []
    queue.push_ready(held)
    assert names(queue) == ["one"]
    queue.push_ready(queue.pop_unmeasured())
    batch = queue.pop()
    assert batch is not None
    assert (batch.predictions.model.name, batch.tracker_contexts) == ("two", ("span",))
    # No span tells of these, and they are most of a batch's bytes.
    assert (batch.predictions.values, batch.predictions.inputs) == ({}, Inputs())
    assert (queue.pop(), queue.dropped_batches) == (None, 0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.sampled_from(["held", "release", "take"]), st.sampled_from([1, 4096, 30_000])), max_size=60)
)
def test_every_batch_is_taken_waits_or_is_given_up_and_what_waits_is_bounded(steps: list[str | int]) -> None:
    JOURNAL.reset()
    queue, held = SpanQueue(), list[SpanBatch]()
    kept, taken, calls = 0, 0, 0
    for step in steps:
        if isinstance(step, int):
            queue.push(predictions(step), ())
            kept, calls = kept + 1, calls + step
        elif step == "held":
            held += queue.pop_unmeasured()
        elif step == "release":
            queue.push_ready(held)
            held = []
        elif (batch := queue.pop()) is not None:
            taken, calls = taken + 1, calls - len(batch.predictions.errors)
    queue.push_ready([*held, *queue.pop_unmeasured()])
    waiting: list[int] = []
    while (batch := queue.pop()) is not None:
        waiting.append(len(batch.predictions.errors))
    assert kept == taken + len(waiting) + queue.dropped_batches
    given_up = JOURNAL.totals(semconv.RECORDS_DROPPED.name).get(((semconv.REASON, "exporter_blocked"),), 0)
    assert calls == sum(waiting) + given_up
    assert sum(waiting) <= MAX_CALLS + 30_000 * len(held)


def test_small_batches_are_bounded_too_the_oldest_are_given_up() -> None:
    queue, most = SpanQueue(), MAX_CALLS // MIN_BATCH_WEIGHT
    for number in range(most + 3):
        queue.push(predictions(1, str(number)), ())
        if number == most // 2:
            queue.push_ready(queue.pop_unmeasured())
    assert queue.dropped_batches == 3
    queue.push_ready(queue.pop_unmeasured())
    assert names(queue) == [str(number) for number in range(3, most + 3)]
