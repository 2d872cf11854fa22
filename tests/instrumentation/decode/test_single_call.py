"""One call read by itself says what a batch of that call says, or nothing, and changes nothing of the batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.decode.decoder import TensorDecoder
from otel_mlmon.instrumentation.decode.predictions import CallSummary, describe_call
from otel_mlmon.instrumentation.export.call_sampler import prioritize_calls
from otel_mlmon.instrumentation.runtime.call import CallTuple
from otel_mlmon.instrumentation.runtime.model_graph import LazyModelGraph, ModelGraph, OutputOrigin
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import make_call_copier
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.types import OUTPUT_KINDS
from tests.support.calls import Node, Sink, batch_of, planned, records_of

Arrays = Mapping[str, Any]
RNG = np.random.default_rng(7)
NAMES = ["y", "label", "probabilities", "logits", "scores", "embedding", "boxes", "price", "tags"]
ORIGINS: list[OutputOrigin | None] = [
    None,
    OutputOrigin(role="probabilities", operator="Softmax", axis=1, rank=2),
    OutputOrigin(role="probabilities", operator="Softmax", axis=1, rank=2, labels=("a", "b", "c")),
    OutputOrigin(role="log_probabilities", operator="LogSoftmax", axis=1, rank=2),
    OutputOrigin(role="sigmoid", operator="Sigmoid", rank=2),
    OutputOrigin(role="linear", operator="Gemm", rank=2),
    OutputOrigin(role="label", operator="ArgMax", rank=1),
    OutputOrigin(role="values", operator="LinearRegressor", rank=2),
    OutputOrigin(role="top_k_scores", operator="TopK", rank=2, source_role="probabilities"),
    OutputOrigin(role="top_k_labels", operator="TopK", rank=2, source_role="probabilities"),
    OutputOrigin(role="probabilities", axis=1, rank=2, is_quantised=True, scale=1 / 256, zero_point=-128),
]


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def draw_output(draw: st.DrawFn, shape: str, rows: int, width: int, dtype: str) -> Any:
    """An output of so many rows, of the sort that models have."""
    seed = draw(st.integers(0, 2**32 - 1))
    numbers = np.random.default_rng(seed).normal(size=(rows, width)) * draw(st.sampled_from([0.0, 0.3, 1.0, 40.0]))
    if shape == "probabilities":
        numbers = softmax(numbers) if numbers.size else numbers
    elif shape == "sigmoids":
        numbers = 1 / (1 + np.exp(-numbers))
    elif shape == "texts":
        return np.array([draw(st.sampled_from(["cat", "dog", "", "Mr. Smith"])) for _ in range(rows)], dtype=object)
    elif shape == "text table":
        return np.array([["cat", "dog"]] * rows, dtype=object).reshape(rows, 2)
    elif shape == "maps":
        return [dict(zip("abc", row, strict=True)) for row in softmax(np.ones((rows, 3)) * seed % 5).tolist()]
    if shape == "grid":
        numbers = np.round(softmax(numbers) * 256 - 128) if numbers.size else numbers
    array = np.clip(numbers, -120, 120).astype("int8" if shape == "grid" else dtype)
    if array.dtype.kind == "f" and array.size:
        for odd in draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 6e4]), max_size=1)):
            array.flat[draw(st.integers(0, array.size - 1))] = odd
    return array[:, 0] if shape == "column" else array


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[tuple[Arrays, Arrays]], dict[str, Any], dict[str, OutputOrigin]]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    shapes = {
        name: draw(
            st.sampled_from(["probabilities", "sigmoids", "numbers", "column", "texts", "text table", "maps", "grid"])
        )
        for name in names
    }
    widths = {name: draw(st.sampled_from([1, 2, 3, 3, 5, 40])) for name in names}
    dtypes = {
        name: draw(st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"])) for name in names
    }
    calls: list[tuple[Arrays, Arrays]] = []
    for _ in range(draw(st.integers(2, 4))):
        rows = draw(st.sampled_from([1, 1, 1, 2, 3, 9]))
        outputs = {}
        for name in names:
            is_odd = draw(st.integers(0, 19)) == 0
            height, width = (rows + 1, widths[name] + 1) if is_odd else (rows, widths[name])
            outputs[name] = draw_output(draw, shapes[name], height, width, dtypes[name])
        calls.append(({"x": np.zeros((rows, 2), np.float32)}, outputs))
    described = {
        "output_kind": draw(st.sampled_from([None, None, None, *OUTPUT_KINDS])),
        "labels": draw(st.sampled_from([[], [], ["a", "b", "c"], ["a", "b"]])),
    }
    return calls, described, {name: origin for name in names if (origin := draw(st.sampled_from(ORIGINS)))}


def records(
    calls: Sequence[tuple[Arrays, Arrays]], origins: Mapping[str, OutputOrigin], nodes: Mapping[str, Node]
) -> list[CallTuple]:
    plan, positions = planned(*calls[0], nodes=nodes)
    graph = LazyModelGraph(lambda: ModelGraph(state="read", outputs=origins))
    plan = dataclasses.replace(plan, session=dataclasses.replace(plan.session, graph=graph))
    sink = Sink()
    copy_call = make_call_copier(plan, positions, sink=sink, context=lambda _: None)
    for feed, outputs in calls:
        copy_call(feed, list(outputs.values()), 10, 1010)
    return records_of(sink.queue)


def described(outputs: Arrays) -> dict[str, Node]:
    """What onnxruntime would say of outputs that are no arrays."""
    return {
        name: Node(name=name, type="seq(map(string,tensor(float)))", shape=[])
        for name, value in outputs.items()
        if isinstance(value, list)
    }


def decoder_of(first: CallTuple, options: Mapping[str, Any]) -> TensorDecoder:
    return TensorDecoder(first[0], options=lambda _: ModelOptions(**options), max_features=5)


def summarize(decoder: TensorDecoder, call: CallTuple) -> CallSummary:
    predictions = decoder.decode_batch(batch_of([call]))
    return describe_call(predictions, prioritize_calls(predictions), 0).summary


def assert_same(actual: CallSummary, expected: CallSummary) -> None:
    assert actual[:3] == expected[:3]
    for ours, theirs in zip(actual[3:], expected[3:], strict=True):
        # Numpy adds up the powers of logits in another order.
        assert (ours is None) == (theirs is None)
        assert ours is None or ours == pytest.approx(theirs, rel=1e-12, abs=0)


def compare(
    calls: Sequence[tuple[Arrays, Arrays]], options: Mapping[str, Any], origins: Mapping[str, OutputOrigin]
) -> list[CallSummary | None]:
    """Reads every call but the first by itself before a batch does, and compares."""
    copies = records(calls, origins, described(calls[0][1]))
    reading, other = decoder_of(copies[0], options), decoder_of(copies[0], options)
    read: list[CallSummary | None] = []
    for call in copies:
        summary = reading.read_call(call[4], call[5])
        expected = summarize(other, call)
        if summary is not None:
            assert_same(summary, expected)
        assert summarize(reading, call) == expected, "reading changed what a batch decodes"
        read.append(summary)
    return read


@settings(deadline=None, max_examples=150)
@given(situations())
def test_a_call_by_itself_says_what_its_batch_says(situation: Any) -> None:
    compare(*situation)


def table(kind: str, rows: int, width: int, dtype: str) -> np.ndarray:
    numbers = RNG.normal(size=(rows, width))
    if kind in {"probabilities", "sigmoid", "multi_label"}:
        numbers = softmax(numbers) if kind == "probabilities" and width > 1 else 1 / (1 + np.exp(-numbers))
    return numbers.astype(dtype)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "width"),
    [("probabilities", 4), ("probabilities", 300), ("logits", 4), ("logits", 1), ("logits", 300), ("sigmoid", 1),
     ("multi_label", 5), ("regression", 2), ("embedding", 8), ("top_k", 3)],
)  # fmt: skip
def test_every_kind_is_read_by_itself(kind: str, width: int, dtype: str, rows: int) -> None:
    calls = [({"x": np.zeros((rows, 2), np.float32)}, {"y": table(kind, rows, width, dtype)}) for _ in range(3)]
    _, second, third = compare(calls, {"output_kind": kind}, {})
    assert second is not None
    assert third is not None
    assert third.batch_size == rows
    if kind in {"probabilities", "logits", "sigmoid", "multi_label"}:
        assert third.mean_confidence is not None
    if kind in {"probabilities", "logits", "sigmoid"}:
        assert (third.label is not None) == (rows == 1)


@pytest.mark.parametrize(("kind", "value"), [("sigmoid", 0.5), ("logits", 0.0)])
def test_a_score_on_the_border_is_of_the_same_class(kind: str, value: float) -> None:
    calls = [({"x": np.zeros((1, 2), np.float32)}, {"y": np.array([[value]], np.float32)})] * 2
    summary = compare(calls, {"output_kind": kind}, {})[-1]
    assert summary is not None
    assert (summary.label, summary.mean_confidence) == ("1", 0.5)


def test_a_row_that_contradicts_the_kind_is_left_to_its_batch() -> None:
    rows = [[0.25, 0.75], [0.25, 0.75], [0.25, 0.5]]
    calls = [({"x": np.zeros((1, 2), np.float32)}, {"y": np.array([row], np.float32)}) for row in rows]
    _, second, third = compare(calls, {}, {})
    assert second is not None
    assert (second.label, second.mean_confidence, third) == ("1", 0.75, None)


@pytest.mark.parametrize("label", ["int64", "object"])
@pytest.mark.parametrize("as_maps", [False, True])
def test_a_label_beside_its_probabilities_is_read_by_itself(label: str, *, as_maps: bool) -> None:
    calls: list[tuple[Arrays, Arrays]] = []
    for _ in range(4):
        scores = table("probabilities", 1, 3, "float32")
        words = np.array(["cat", "dog", "cow"], dtype=object)[scores.argmax(axis=1)]
        labels = words if label == "object" else scores.argmax(axis=1)
        maps: Any = [dict(zip(("cat", "dog", "cow"), row, strict=True)) for row in scores.tolist()]
        outputs = {"label": labels, "probabilities": maps if as_maps else scores}
        calls.append(({"x": np.zeros((1, 2), np.float32)}, outputs))
    last = compare(calls, {}, {})[-1]
    assert last is not None
    copies = records(calls, {}, described(calls[0][1]))
    decoder = decoder_of(copies[0], {})
    summarize(decoder, copies[0])
    # In the fewest steps: as the general way reads it, which is not gone.
    decoder._reader.read_call(*copies[-1][4:6])
    assert decoder._reader._read_row(*copies[-1][4:6]) == last
    assert (last.batch_size, last.head_name) == (1, "")
    assert last.label is not None
    assert last.mean_confidence is not None


def test_a_failed_call_is_read_by_itself() -> None:
    calls = [({"x": np.zeros((1, 2), np.float32)}, {"y": table("probabilities", 1, 4, "float32")})] * 2
    copies = records(calls, {}, {})
    failed = (*copies[1][:4], (), (), "ValueError")
    decoder = decoder_of(copies[0], {})
    summarize(decoder, copies[0])
    assert decoder.read_call((), ()) == summarize(decoder, failed) == CallSummary()


def test_rows_that_contradict_their_kind_are_left_to_a_batch() -> None:
    good, bad = table("probabilities", 1, 4, "float32"), np.array([[3, -1, 0.5, 9]], np.float32)
    calls = [({"x": np.zeros((1, 2), np.float32)}, {"y": rows}) for rows in (good, bad, good)]
    first, second, third = compare(calls, {}, {})
    assert (first, second) == (None, None)
    assert third == CallSummary(batch_size=1), "what was counted as another kind stays out"
