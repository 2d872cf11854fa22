from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity
from otel_mlmon.instrumentation.decode.predictions import InputSummary, Predictions
from otel_mlmon.instrumentation.export.spans import MAX_CALLS, MIN_BATCH_WEIGHT, SpanBatch, SpanQueue
from otel_mlmon.internal_events import JOURNAL


def predictions(calls: int, name: str = "m") -> Predictions:
    return Predictions(
        model=ModelIdentity(name=name, version="", provider="", runtime_version=""),
        operation="run",
        started_ns=np.zeros(calls, dtype=np.int64),
        duration_ns=np.zeros(calls, dtype=np.int64),
        contexts=[None] * calls,
        errors=[None] * calls,
        batch_sizes=np.zeros(calls, dtype=np.int64),
        values={"y": np.zeros(calls)},
        inputs=InputSummary(features={"f0": np.zeros(calls)}, samples=calls),
    )


def names(queue: SpanQueue) -> list[str]:
    found: list[str] = []
    while (batch := queue.pop_ready_batch()) is not None:
        found.append(batch.predictions.model.name)
    return found


def test_a_batch_is_taken_once_and_not_before_it_is_released() -> None:
    queue = SpanQueue()
    queue.push_uncounted_batch(predictions(1, "one"), ())
    held = queue.pop_uncounted_batches()
    queue.push_uncounted_batch(predictions(1, "two"), ("span",))
    assert names(queue) == []
    queue.push_ready_batches(held)
    assert names(queue) == ["one"]
    queue.push_ready_batches(queue.pop_uncounted_batches())
    batch = queue.pop_ready_batch()
    assert batch is not None
    assert (batch.predictions.model.name, batch.tracker_contexts) == ("two", ("span",))
    # No span tells of these, and they are most of a batch's bytes.
    assert (batch.predictions.values, batch.predictions.inputs) == ({}, InputSummary())
    assert (queue.pop_ready_batch(), queue.dropped_batches) == (None, 0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.sampled_from(["held", "release", "take"]), st.sampled_from([1, 4096, 30_000])), max_size=60)
)
def test_every_batch_is_taken_waits_or_is_given_up_and_what_waits_is_bounded(steps: list[str | int]) -> None:
    JOURNAL.reset_totals()
    queue, held = SpanQueue(), list[SpanBatch]()
    pushed, popped, calls = 0, 0, 0
    for step in steps:
        if isinstance(step, int):
            queue.push_uncounted_batch(predictions(step), ())
            pushed, calls = pushed + 1, calls + step
        elif step == "held":
            held += queue.pop_uncounted_batches()
        elif step == "release":
            queue.push_ready_batches(held)
            held = []
        elif (batch := queue.pop_ready_batch()) is not None:
            popped, calls = popped + 1, calls - len(batch.predictions.errors)
    queue.push_ready_batches([*held, *queue.pop_uncounted_batches()])
    waiting: list[int] = []
    while (batch := queue.pop_ready_batch()) is not None:
        waiting.append(len(batch.predictions.errors))
    assert pushed == popped + len(waiting) + queue.dropped_batches
    given_up = JOURNAL.read_totals(semconv.RECORDS_DROPPED.name).get(((semconv.REASON, "exporter_blocked"),), 0)
    assert calls == sum(waiting) + given_up
    assert sum(waiting) <= MAX_CALLS + 30_000 * len(held)


def test_small_batches_are_bounded_too_the_oldest_are_given_up() -> None:
    queue, most = SpanQueue(), MAX_CALLS // MIN_BATCH_WEIGHT
    for number in range(most + 3):
        queue.push_uncounted_batch(predictions(1, str(number)), ())
        if number == most // 2:
            queue.push_ready_batches(queue.pop_uncounted_batches())
    assert queue.dropped_batches == 3
    queue.push_ready_batches(queue.pop_uncounted_batches())
    assert names(queue) == [str(number) for number in range(3, most + 3)]


def test_as_many_calls_wait_as_may_and_one_more_drops_the_oldest_batch() -> None:
    JOURNAL.reset_totals()
    queue = SpanQueue()
    queue.push_uncounted_batch(predictions(1000, "first"), ())
    queue.push_uncounted_batch(predictions(65_536 - 1000, "second"), ())
    assert queue.dropped_batches == 0
    queue.push_uncounted_batch(predictions(1, "third"), ())  # weighs 64
    queue.push_ready_batches(queue.pop_uncounted_batches())
    assert (names(queue), queue.dropped_batches) == (["second", "third"], 1)
    totals = JOURNAL.read_totals(semconv.RECORDS_DROPPED.name)
    assert totals == {((semconv.REASON, "exporter_blocked"),): 1000}


def test_a_batch_that_was_popped_leaves_room_for_as_many_calls() -> None:
    queue = SpanQueue()
    queue.push_uncounted_batch(predictions(1, "small"), ())
    queue.push_uncounted_batch(predictions(65_536 - 64, "large"), ())
    queue.push_ready_batches(queue.pop_uncounted_batches())
    assert queue.pop_ready_batch() is not None
    queue.push_uncounted_batch(predictions(MIN_BATCH_WEIGHT, "medium"), ())
    assert queue.dropped_batches == 0
    queue.push_uncounted_batch(predictions(1, "one more"), ())
    assert queue.dropped_batches == 1
    queue.push_ready_batches(queue.pop_uncounted_batches())
    assert names(queue) == ["medium", "one more"]


def test_a_batch_larger_than_may_wait_is_dropped_itself() -> None:
    queue = SpanQueue()
    queue.push_uncounted_batch(predictions(MAX_CALLS + 1), ())
    assert (queue.dropped_batches, list(queue.pop_uncounted_batches()), queue.pop_ready_batch()) == (1, [], None)


def test_ready_batches_are_dropped_before_those_that_the_metrics_do_not_hold() -> None:
    queue = SpanQueue()
    queue.push_uncounted_batch(predictions(1000, "ready"), ())
    batches = queue.pop_uncounted_batches()
    queue.push_uncounted_batch(predictions(1000, "unmeasured"), ())
    queue.push_ready_batches(batches)
    queue.push_uncounted_batch(predictions(MAX_CALLS - 1000, "newest"), ())
    queue.push_ready_batches(queue.pop_uncounted_batches())
    assert names(queue) == ["unmeasured", "newest"]


def test_batches_that_somebody_holds_between_both_queues_cannot_be_dropped() -> None:
    queue = SpanQueue()
    queue.push_uncounted_batch(predictions(MAX_CALLS, "held"), ())
    batches = queue.pop_uncounted_batches()
    queue.push_uncounted_batch(predictions(1, "dropped"), ())
    assert queue.dropped_batches == 1
    queue.push_ready_batches(batches)
    assert names(queue) == ["held"]
