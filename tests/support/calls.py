"""Simulates the calls of a session that does not exist: described, copied by the real copiers, and decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from otel_mlmon.instrumentation.aggregate.aggregator import MetricSnapshot, PredictionAggregator
from otel_mlmon.instrumentation.decode.batch import CallBatch, take_call_batches
from otel_mlmon.instrumentation.decode.decoder import TensorDecoder
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity
from otel_mlmon.instrumentation.decode.predictions import (
    ClassificationHead,
    PredictedLabels,
    PredictionConfidences,
    Predictions,
)
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import (
    FIELDS,
    CallTuple,
    Item,
    Plan,
    SessionInfo,
    Side,
    estimate_call_bytes,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import make_call_copier
from otel_mlmon.instrumentation.runtime.onnxruntime.plans import plan_inputs, plan_outputs
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.vocabulary import Admit

Arrays = Mapping[str, Any]

_TYPES = {"float32": "float", "float64": "double", "object": "string"}


@dataclass(kw_only=True)
class Node:
    """An input or output of a session, as onnxruntime describes it."""

    name: str
    type: str
    shape: Sequence[object]


def node(name: str, value: Any, *, width: str | None = None) -> Node:
    """Describes an array as an input or output with a free first axis, or the second called `width`."""
    array = np.asarray(value)
    tail: list[object] = list(array.shape[1:])
    if width is not None:
        tail[0] = width
    kind = _TYPES.get(array.dtype.name, array.dtype.name)
    return Node(name=name, type=f"tensor({kind})", shape=["N", *tail] if array.ndim else [])


@dataclass
class Described:
    """A session's word on its inputs and outputs."""

    inputs: list[Node]
    outputs: list[Node]

    def get_inputs(self) -> list[Node]:
        return self.inputs

    def get_outputs(self) -> list[Node]:
        return self.outputs


@dataclass
class Sink:
    """A sink of decoded records that keeps every one."""

    queue: list[Any] = field(default_factory=list)
    high_water: int = 1 << 30
    max_bytes: int = 1 << 40

    def offer(self, record: CallTuple, size_bytes: int) -> None:
        self.queue.extend(record)

    def drop(self, reason: str) -> None:
        raise AssertionError(reason)


def session(*, name: str = "m", metadata: Mapping[str, str] | None = None) -> SessionInfo:
    return SessionInfo(
        model_name=name,
        path="",
        graph_name="",
        version=1,
        metadata=dict(metadata or {}),
        provider="CPUExecutionProvider",
        runtime_version="1",
    )


def planned(
    feed: Arrays,
    made: Arrays,
    *,
    nodes: Mapping[str, Node] | None = None,
    metadata: Mapping[str, str] | None = None,
    is_whole: bool = False,
) -> tuple[Plan, list[int]]:
    """What is copy_calls of a session of which this is the first call, and the positions of the outputs copy_calls."""
    said = nodes or {}
    described = Described(
        [said.get(name) or node(name, value) for name, value in feed.items()],
        [said.get(name) or node(name, value) for name, value in made.items()],
    )
    inputs = plan_inputs(described, feed)
    seen = dict(enumerate(zip(described.get_outputs(), made.values(), strict=True)))
    outputs = plan_outputs(seen, is_whole=is_whole)
    plan = Plan(
        session=session(metadata=metadata),
        operation="run",
        inputs=inputs,
        outputs=tuple(outputs.values()),
        output_names=tuple(made),
    )
    return plan, list(outputs)


def copy_calls(calls: Sequence[tuple[Arrays, Arrays]], **described: Any) -> list[CallTuple]:
    """Calls as they would be copy_calls on the host's thread; each is its inputs and its outputs, by name."""
    plan, positions = planned(*calls[0], **described)
    sink = Sink()
    copy_call = make_call_copier(plan, positions, sink=sink, context=lambda _: None)
    for given, found in calls:
        copy_call(given, list(found.values()), 10, 1010)
    return records_of(sink.queue)


def records_of(fields: Sequence[Any]) -> list[CallTuple]:
    """Returns the records that wait in a flat buffer, call by call."""
    return list(zip(*[iter(fields)] * FIELDS, strict=True))


def copies(side: Side) -> tuple[Item, ...]:
    """Returns the copied inputs or outputs of a call, one item a tensor."""
    return (side,) if isinstance(side, bytes) else side


def batch_of(records: Sequence[CallTuple]) -> CallBatch:
    """Returns a batch of calls of one plan, as they are gathered from the buffer."""
    ring = CallQueue(
        fields=FIELDS, max_records=len(records) + 1, max_bytes=1 << 40, attend=lambda _: None, weigh=estimate_call_bytes
    )
    for record in records:
        ring.offer(record, 1)
    (batch,), _ = take_call_batches(ring.take_calls, len(records), is_suppressed=lambda _: False, pause=lambda: None)
    return batch


def summarize(
    records: Sequence[CallTuple],
    options: ModelOptions,
    *,
    cuts: Sequence[int] = (),
    findings: ModelFindings | None = None,
    admit: Admit = lambda _, __, ___, counts, ____: counts,
) -> MetricSnapshot:
    """Adds up decoded records, which are read in pieces that end at `cuts`."""
    decoder = TensorDecoder(records[0][0], options=lambda _: options, max_features=100, findings=findings)
    aggregator = PredictionAggregator(admit=admit)
    ends = [*sorted({cut % len(records) for cut in cuts} - {0}), len(records)]
    start = 0
    for end in ends:
        aggregator.add_predictions(decoder.decode_batch(batch_of(records[start:end])))
        start = end
    (snapshot,) = aggregator.take_snapshots()
    return snapshot


def labels_of(snapshot: MetricSnapshot) -> Mapping[str, int]:
    """Counts the predictions of a model's only output by label; empty without labels."""
    assert set(snapshot.labels) <= {""}
    return snapshot.labels.get("", {})


def confidences_of(snapshot: MetricSnapshot) -> np.ndarray:
    """Returns the confidences of a model's only output."""
    assert set(snapshot.confidences) <= {""}
    return snapshot.confidences.get("", np.zeros(0))


def make_predictions(
    confidences: Sequence[Sequence[float]],
    *,
    errors: Sequence[str | None] = (),
    labels: PredictedLabels | None = None,
    batch_sizes: Sequence[int] = (),
    version: str = "2",
) -> Predictions:
    """Calls of the model `m`, with the confidences of the rows of each."""
    calls = len(confidences)
    return Predictions(
        model=ModelIdentity(name="m", version=version, provider="CPU", runtime_version="1.2"),
        operation="run",
        started_ns=np.zeros(calls, dtype=np.int64),
        duration_ns=np.arange(1, calls + 1, dtype=np.int64) * 500_000_000,
        contexts=[None] * calls,
        errors=errors or [None] * calls,
        batch_sizes=np.array(batch_sizes or [len(rows) for rows in confidences], dtype=np.int64),
        heads={
            "": ClassificationHead(
                labels=labels or PredictedLabels(),
                confidences=PredictionConfidences(
                    np.array([value for rows in confidences for value in rows], dtype=np.float64),
                    np.array([call for call, rows in enumerate(confidences) for _ in rows], dtype=np.int64),
                ),
            )
        },
    )
