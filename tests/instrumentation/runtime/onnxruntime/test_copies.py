from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.instrumentation.runtime.call import FIELDS, RECORD_BYTES, Item, Side, Tensor
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    SMALL_BYTES,
    TEXT_BYTES,
    copier_of,
    make_copier,
    side_of,
    weight_of,
)
from tests.support.calls import Sink, planned, records_of


@pytest.mark.parametrize(
    ("items", "side", "weight"),
    [
        ([], (), 0),
        ([b"abc"], b"abc", 3),
        ([None], (None,), 0),
        ([b"abc", None], (b"abc", None), 3),
        ([((9, 2), b"abcd")], (((9, 2), b"abcd"),), 104),
        ([((2,), ("bee", "fly!"))], (((2,), ("bee", "fly!")),), 107 + 2 * TEXT_BYTES),
    ],
)
def test_a_side_is_bare_if_it_is_one_array_copied_whole_and_weighs_what_it_holds(
    items: list[Item], side: Side, weight: int
) -> None:
    assert (side_of(items), weight_of(items)) == (side, RECORD_BYTES + weight)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"a": 0.5, "b": 0.25}], ((1, 2), np.array([0.5, 0.25], np.float32).tobytes())),
        ([{"a": 0.5, "b": 0.25}, {"a": 1.0}], ((2, 2), b"")),
        ([], None),
        ("no list", None),
    ],
)
def test_dictionaries_of_scores_are_copied_as_a_table_if_they_are_one(rows: object, expected: Item) -> None:
    assert copier_of(Tensor(name="p", layout="maps", dtype="float32"), is_input=False)(rows) == expected


@pytest.mark.parametrize("made_rows", [1, 2, SMALL_BYTES])
def test_outputs_of_other_sizes_than_inputs_are_copied_whole(made_rows: int) -> None:
    table = np.arange(2, dtype=np.float32).reshape(-1, 2)
    made = np.arange(2 * made_rows, dtype=np.float32).reshape(-1, 2)
    plan, positions = planned({"x": table}, {"y": table})
    sink = Sink(queue=["of another call"] * FIELDS)
    make_copier(plan, positions, sink=sink, context=lambda _: "here")({"x": table}, [made], 1, 2)
    _, call = records_of(sink.queue)
    assert call == (plan, 1, 2, "here", table.tobytes(), made.tobytes(), None)
