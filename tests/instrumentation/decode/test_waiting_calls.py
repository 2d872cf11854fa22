"""Calls are read while they wait: they stay in the queue, and no file of a model is read on the thread that asks."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.batch import take_call_batches
from otel_mlmon.instrumentation.decode.decoder import DecoderCache, TensorDecoder
from otel_mlmon.instrumentation.decode.predictions import CallDescription, CallSummary, Predictions
from otel_mlmon.instrumentation.decode.waiting_calls import WaitingCallReader
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, CallTuple, Load, Plan, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.model_graph import LazyModelGraph, ModelGraph
from otel_mlmon.instrumentation.settings import ModelOptions
from tests.support.calls import copy_calls

EVERY = (1000, 1000)
ROW = np.array([[0.1, 0.7, 0.2]], np.float32)
READ = ModelGraph(state="read")


def read_never() -> ModelGraph:
    raise AssertionError("the file was read")


class Waiting:
    """A queue with its decoders, and what they decoded."""

    def __init__(self, *, wake: Callable[[], bool] = lambda: False) -> None:
        self.queue = CallQueue(
            fields=FIELDS, max_records=1000, max_bytes=1 << 20, attend=lambda _: None, weigh=estimate_call_bytes
        )
        self.decoded: list[Predictions] = []
        self.loads: list[Load] = []
        self.decoders = DecoderCache(
            lambda plan: TensorDecoder(plan, options=lambda _: ModelOptions(), max_features=0), on_new=lambda _: None
        )
        self.calls = WaitingCallReader(
            self.queue,
            decode=self.decode,
            decoders=self.decoders,
            options=lambda _: ModelOptions(),
            is_suppressed=lambda context: context == "suppressed",
            wake=wake,
            loads=self.loads,
        )

    def decode(self, take: Callable[[int], list[Any]], limit: int, pause: Callable[[], object]) -> None:
        batches, _ = take_call_batches(take, limit, is_suppressed=lambda context: context == "suppressed", pause=pause)
        self.decoded += map(self.decoders.decode_batch, batches)

    def put(self, plan: Plan, record: CallTuple, context: object) -> None:
        self.queue.offer((plan, *record[1:3], context, *record[4:]), 1)

    def read(
        self, wanted: object = "ours", *, timeout_s: float = 30.0, bounds: tuple[int, int] = EVERY
    ) -> Sequence[CallDescription]:
        held: list[bool] = []
        found = self.calls.read_waiting_calls(
            timeout_s,
            lambda context: context in (wanted, "suppressed"),
            lambda: bounds,
            lambda: held.append(self.calls.lock.locked()),
        )
        assert (held, self.calls.lock.locked()) == ([True], False)
        return found


def record(graph: LazyModelGraph | None = None) -> tuple[Plan, CallTuple]:
    (one,) = copy_calls([({"x": np.zeros((1, 2), np.float32)}, {"probabilities": ROW})])
    plan = one[0]
    if graph is not None:
        plan = dataclasses.replace(plan, session=dataclasses.replace(plan.session, graph=graph))
    return plan, one


def test_calls_of_one_context_are_read_in_order_and_stay() -> None:
    waiting, (plan, call) = Waiting(), record()
    waiting.put(plan, call, "ours")
    assert waiting.read() == [], "the first of a model are decoded, not read"
    (first,) = waiting.decoded
    assert (len(first.errors), len(waiting.queue)) == (1, 0)
    for start_ns, context in enumerate(["ours", "other", "suppressed", "ours", None, "ours"]):
        waiting.put(plan, (call[0], start_ns, 1000, *call[3:]), context)
    before = list(waiting.queue.queue)
    found = waiting.read()
    assert [description.started_ns for description in found] == [0, 3, 5]
    confidence = float(ROW.max())
    assert {description.summary for description in found} == {CallSummary(1, "", "1", confidence, confidence)}
    assert {description.model.name for description in found} == {"m"}
    assert [description.started_ns for description in waiting.read(bounds=(2, 1))] == [3]
    assert waiting.queue.queue == before
    assert waiting.decoded == [first]


def test_only_calls_that_cannot_be_read_are_taken_out() -> None:
    waiting, (plan, call) = Waiting(), record()
    other, _ = record()
    waiting.put(plan, call, "ours")
    waiting.read()
    for place, context in [(plan, "other"), (other, "ours"), (plan, "ours"), (other, "other")]:
        waiting.put(place, call, context)
    assert len(waiting.read()) == 1
    assert [len(batch.errors) for batch in waiting.decoded] == [1, 1]
    assert waiting.queue.queue[::FIELDS] == [plan, plan, other]


def test_no_file_is_read_where_the_worker_does_not_run() -> None:
    waiting, (plan, call) = Waiting(), record(LazyModelGraph(read_never))
    waiting.put(plan, call, "ours")
    (found,) = waiting.read()
    assert (found.model.name, found.summary, found.duration_ns) == ("m", CallSummary(), 1000)
    assert (len(waiting.queue), waiting.decoded) == (1, [])


def test_the_worker_is_waited_for_while_it_reads_a_file() -> None:
    graph = LazyModelGraph(lambda: READ)
    readers: list[threading.Thread] = []

    def wake() -> bool:
        readers.append(threading.Thread(target=waiting.calls.read_model_graphs))
        readers[0].start()
        return True

    waiting, (plan, call) = Waiting(wake=wake), record(graph)
    waiting.put(plan, call, "ours")
    assert waiting.read() == []
    (decoded,) = waiting.decoded
    assert (len(decoded.errors), graph.known) == (1, READ)
    readers[0].join()


def test_a_slow_file_is_waited_for_once() -> None:
    woken = itertools.count()
    waiting, (plan, call) = Waiting(wake=lambda: next(woken) >= 0), record(LazyModelGraph(read_never))
    waiting.put(plan, call, "ours")
    for _ in range(3):
        (found,) = waiting.read(timeout_s=0.01)
        assert found.summary == CallSummary()
    assert next(woken) == 1


def test_nothing_is_read_while_a_batch_is_decoded_for_too_long() -> None:
    waiting, (plan, call) = Waiting(), record()
    waiting.put(plan, call, "ours")
    finished: list[str] = []
    with waiting.calls.lock:
        assert (
            waiting.calls.read_waiting_calls(0.01, lambda _: True, lambda: EVERY, lambda: finished.append("once")) == []
        )
    assert finished == ["once"]
    assert not waiting.calls.lock.locked()


def test_the_lock_is_given_back_whatever_happens() -> None:
    def fail() -> None:
        raise ValueError("span")

    waiting = Waiting()
    with pytest.raises(ValueError, match="span"):
        waiting.calls.read_waiting_calls(1.0, lambda _: True, lambda: EVERY, fail)
    assert not waiting.calls.lock.locked()


def test_loads_whose_files_were_not_read_keep_calls_from_being_decoded() -> None:
    waiting, (plan, call) = Waiting(), record()
    other, _ = record(LazyModelGraph(read_never))
    waiting.loads.append(Load(other.session, "", 0, None))
    waiting.put(plan, call, "ours")
    (found,) = waiting.read(timeout_s=0.01)
    assert (found.summary, len(waiting.queue), waiting.decoded) == (CallSummary(), 1, [])
