"""What is copied of an asynchronous call: its inputs at the start, its outputs when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, CallTuple, Plan, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.onnxruntime.async_calls import AsyncCopier
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import SMALL_BYTES
from otel_mlmon.instrumentation.runtime.onnxruntime.plans import plan_inputs, plan_outputs
from tests.support.calls import Described, node, records_of, session

SCORES = np.arange(4, dtype=np.float32).reshape(1, 4)


class Recording:
    """A copier of calls that take `feed` and return `outputs`."""

    def __init__(self, feed: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        described = Described(
            [node(name, value) for name, value in feed.items()], [node(name, value) for name, value in outputs.items()]
        )
        self.queue = CallQueue(
            fields=FIELDS, max_records=1000, max_bytes=1 << 24, attend=lambda _: None, weigh=estimate_call_bytes
        )
        self.copier = AsyncCopier(
            Plan(session=session(), operation="run_async", inputs=plan_inputs(described, feed)),
            dict(enumerate(described.outputs)),
            lambda values: plan_outputs(values, is_whole=False),
            sink=self.queue,
            context=lambda _: "context",
        )

    def call(self, feed: Mapping[str, Any], results: list[Any], error: str = "") -> None:
        inputs = self.copier.copy_inputs(feed)
        self.copier.record(1, 2, self.copier.context(None), inputs, results, "user", error)

    def records(self) -> list[CallTuple]:
        return records_of(self.queue.take_calls(1000))


@pytest.mark.parametrize("rows", [1, SMALL_BYTES // 8, SMALL_BYTES])
def test_calls_are_copied_alike_the_long_way_and_the_short_way(rows: int) -> None:
    feed = {"x": np.random.default_rng(0).random((rows, 2), dtype=np.float32)}
    outputs = {"y": np.repeat(SCORES, rows, axis=0)}
    recording = Recording(feed, outputs)
    for _ in range(4):
        recording.call(feed, list(outputs.values()))
    records = recording.records()
    assert len(records) == 4
    assert {(record[1:4], record[4], record[5], record[6]) for record in records} == {
        ((1, 2, "context"), records[0][4], outputs["y"].tobytes(), None)
    }
    if rows * 8 <= SMALL_BYTES:
        assert records[0][4] == feed["x"].tobytes()


def test_several_outputs_and_strings() -> None:
    feed = {"text": np.array([["a"]], dtype=object)}
    recording = Recording(feed, {"label": np.array([3]), "scores": SCORES})
    for _ in range(2):
        recording.call(feed, [np.array([3]), SCORES])
    for record in recording.records():
        assert record[4:6] == ((((1, 1), ("a",)),), (np.array([3]).tobytes(), SCORES.tobytes()))


def test_a_failure_has_neither_inputs_nor_outputs_and_shares_one_plan() -> None:
    feed = {"x": np.ones((1, 2), np.float32)}
    recording = Recording(feed, {"y": SCORES})
    recording.call(feed, [], "it failed")
    recording.call(feed, [SCORES])
    recording.call(feed, [], "it failed")
    first, second, third = recording.records()
    assert (first[4:], third[4:]) == (((), (), "RuntimeError"),) * 2
    assert first[0] is third[0]
    assert (first[0].inputs, second[6]) == ((), None)


def test_results_that_are_fewer_than_described_are_copied_as_far_as_they_go() -> None:
    feed = {"x": np.ones((1, 2), np.float32)}
    recording = Recording(feed, {"y": SCORES, "z": SCORES})
    recording.call(feed, [SCORES])
    (record,) = recording.records()
    assert (record[5], len(record[0].outputs)) == (SCORES.tobytes(), 1)
