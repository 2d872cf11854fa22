"""Whatever goes in and comes out, reading it raises nothing, counts every call, and lets no odd number through."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.types import OUTPUT_KINDS
from tests.support.calls import Node, copy_calls, labels_of, node, summarize

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NAMES = st.sampled_from(["x", "output", "logits", "label", "scores", "embedding", "boxes", "num_items", "tags", "hn"])
OBJECTS = st.sampled_from(["a", "b", "", None, float("nan"), 3, b"raw", ["nested"], {"a": 1}, "\x00", "é" * 500])
DTYPES = [
    np.dtype(name)
    for name in ("bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64", "complex64", "<U3")
]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(SHAPES)
    if draw(st.integers(0, 4)) == 0:
        size = int(np.prod(shape, dtype=int))
        snapshot = np.empty(size, dtype=object)
        for at in range(size):
            snapshot[at] = draw(OBJECTS)
        return snapshot.reshape(shape)
    return draw(hnp.arrays(draw(st.sampled_from(DTYPES)), shape))


def declared(name: str, value: np.ndarray, free: list[bool]) -> Node:
    """As a model would declare it, with some of its axes free."""
    snapshot = node(name, value)
    shape = ["free" if is_free else size for size, is_free in zip(value.shape, free, strict=False)]
    return Node(name=name, type=snapshot.type, shape=shape)


LARGE = np.array([[9.48e153, 9.48e153], [-1.7e308, 1.7e308]])
"""Numbers whose squares, sums and differences are beyond the largest number."""


@settings(deadline=None, max_examples=120)  # each is up to four calls of up to six arrays
@example([({}, {"x": LARGE[:1]})], [False] * 4, None, [])
@example([({"x": LARGE}, {"x": LARGE})], [False] * 4, "logits", [])
@example([({}, {"x": LARGE})], [False] * 4, "probabilities", [])
@example([({}, {"x": LARGE})], [False] * 4, "embedding", [])
@example([({}, {"x": LARGE})], [False] * 4, "multi_label", [])
@given(
    st.lists(
        st.tuples(st.dictionaries(NAMES, arrays(), max_size=3), st.dictionaries(NAMES, arrays(), max_size=3)),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.sampled_from([None, *OUTPUT_KINDS]),
    st.lists(st.sampled_from(["a", "a", "b"]), max_size=4),
)
def test_nothing_is_raised_and_every_call_counts(
    calls: list[tuple[dict[str, Any], dict[str, Any]]], free: list[bool], kind: Any, labels: list[str]
) -> None:
    # Every call has the inputs and outputs of the first, with whatever type and shape it drew itself.
    first, made = calls[0]
    same = [
        (
            {name: given.get(name, value) for name, value in first.items()},
            {name: out.get(name, value) for name, value in made.items()},
        )
        for given, out in calls
    ]
    nodes = {name: declared(name, value, free) for name, value in {**made, **first}.items()}
    snapshot = summarize(
        copy_calls(same, nodes=nodes),
        ModelOptions(output_kind=kind, labels=labels),
        cuts=[1, 2],
        findings=ModelFindings(),
    )
    assert snapshot.durations_s[""].size == len(calls)
    for confidences in [*snapshot.confidences.values(), *snapshot.item_confidences.values()]:
        assert ((confidences >= 0) & (confidences <= 1)).all()
    for item_counts in snapshot.item_counts.values():
        assert (item_counts >= 0).all()
    assert all(count >= 0 for count in snapshot.uncounted.values())
    inputs = snapshot.inputs
    for values in [*snapshot.values.values(), *inputs.features.values()]:
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
    for counts in [*snapshot.labels.values(), inputs.missing, *inputs.categories.values()]:
        assert all(count > 0 and isinstance(count, int) for count in counts.values())
        assert all(isinstance(name, str) for name in counts)


def test_ragged_lists_are_of_no_shape() -> None:
    words = [["a", "b"], ["c"]]
    node_of = {"x": Node(name="x", type="tensor(string)", shape=["N", "M"])}
    snapshot = summarize(copy_calls([({"x": words}, {"y": np.zeros((1, 1))})], nodes=node_of), ModelOptions())
    assert snapshot.durations_s[""].size == 1


def test_an_output_of_another_shape_than_declared_spoils_no_other() -> None:
    nodes = {"y": Node(name="y", type="tensor(float)", shape=["N", 3])}
    right, wrong = np.array([[0.2, 0.3, 0.5]], np.float32), np.array([[0.5, 0.5]], np.float32)
    records = copy_calls(
        [({"x": np.zeros((1, 1), np.float32)}, {"y": value}) for value in (right, wrong, right)], nodes=nodes
    )
    snapshot = summarize(records, ModelOptions())
    assert (labels_of(snapshot), snapshot.durations_s[""].size) == ({"2": 2}, 3)
