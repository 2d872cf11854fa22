"""How many boxes, tokens or frames a call gave, and their scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.decode.items import MIN_ITEMS, DetectedItemDecoder, choose_item_outputs
from otel_mlmon.instrumentation.runtime.call import Tensor

RNG = np.random.default_rng(5)


def tensor(name: str = "output", dtype: str = "float32") -> Tensor:
    return Tensor(name=name, layout="rows", dtype=dtype)


def items(*arrays: np.ndarray | None) -> list[Any]:
    return [None if array is None else (array.shape, array.tobytes()) for array in arrays]


def boxes(count: int, *, score: int | None = 4, width: int = 6) -> np.ndarray:
    rows = RNG.uniform(2, 640, (count, width)).astype(np.float32)
    rows[:, -1] = RNG.integers(0, 80, count)
    if score is not None:
        rows[:, score] = RNG.uniform(0.01, 0.99, count)
    return rows


def decode(decoder: DetectedItemDecoder, *arrays: np.ndarray | None) -> tuple[list[float], list[float]]:
    decoded = decoder.decode_items(items(*arrays))
    return decoded.counts.tolist(), decoded.confidences.tolist()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.sampled_from([4, 5, 6]))
def test_boxes_are_counted_and_scored_by_the_one_column_that_can_be_a_score(counts: list[int], score: int) -> None:
    arrays = [boxes(count, score=score, width=7) for count in counts]
    got, scores = decode(DetectedItemDecoder(tensor(), "detection"), *arrays, None)
    assert got == counts
    expected: Any = np.concatenate([array[:, score] for array in arrays]) if sum(counts) >= MIN_ITEMS else []
    np.testing.assert_allclose(scores, expected)


@pytest.mark.parametrize(
    "rows",
    [
        boxes(20, score=None),
        RNG.random((20, 6)).astype(np.float32),  # corners within [0, 1]: any column may be the score
        RNG.random((20, 85)).astype(np.float32),  # a score of each class
        RNG.random((20, 4)).astype(np.float32),  # corners only
        RNG.integers(0, 2, (20, 6)).astype(np.int64),
    ],
)
def test_boxes_without_one_column_of_scores_are_only_counted(rows: np.ndarray) -> None:
    assert decode(DetectedItemDecoder(tensor(dtype=rows.dtype.name), "detection"), rows) == ([20.0], [])


def test_a_column_that_leaves_the_unit_range_ends_the_scores() -> None:
    decoder, later = DetectedItemDecoder(tensor(), "detection"), boxes(9)
    assert len(decode(decoder, boxes(9))[1]) == 9
    later[3, 4] = 1.5
    assert decode(decoder, later) == ([9.0], [])
    assert decode(decoder, boxes(9)) == ([9.0], [])


def test_an_output_of_scores_has_one_an_item_whatever_its_shape() -> None:
    for shape in ((6,), (1, 6), (2, 3)):
        scores = np.linspace(0, 1, 6, dtype=np.float32).reshape(shape)
        assert decode(DetectedItemDecoder(tensor("detection_scores"), "detection"), scores) == (
            [6.0],
            scores.ravel().tolist(),
        )


def test_static_rows_are_counted_by_their_bytes() -> None:
    static = Tensor(name="dets", layout="rows", dtype="float32", row_shape=(6,))
    decoder = DetectedItemDecoder(static, "detection")
    rows = boxes(3)
    assert decoder.decode_items([rows.tobytes(), b"", None]).counts.tolist() == [3.0, 0.0]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(2, 12), st.booleans())
def test_tokens_are_scored_by_the_greatest_probability(batch: int, length: int, width: int, is_log: bool) -> None:
    logits = RNG.normal(size=(batch, length, width)) * 3
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rows = (np.log(shares) if is_log else shares).astype(np.float32)
    counts, scores = decode(DetectedItemDecoder(tensor(), "sequence"), rows)
    assert counts == [float(batch * length)]
    np.testing.assert_allclose(scores, shares.max(-1).ravel(), rtol=1e-4)


@pytest.mark.parametrize("rows", [RNG.normal(size=(1, 5, 7)), RNG.normal(size=(4, 1)), np.array([[0.2, 0.3]])])
def test_tokens_that_are_no_probabilities_are_only_counted(rows: np.ndarray) -> None:
    rows = rows.astype(np.float32)
    assert decode(DetectedItemDecoder(tensor(), "sequence"), rows) == ([float(rows.size // rows.shape[-1])], [])


def test_no_rows_and_no_numbers_are_no_scores() -> None:
    decoder = DetectedItemDecoder(tensor(), "sequence")
    nothing = np.full((1, 2, 3), np.nan, np.float32)
    assert decode(decoder, np.zeros((0, 3), np.float32), nothing, np.zeros((1, 0, 3), np.float32)) == ([0, 2, 0], [])
    assert decode(decoder, np.array([[0.0, 1.0, 0.0]], np.float32)) == ([1.0], [1.0])


def test_each_box_is_counted_by_one_output() -> None:
    outputs = {0: tensor("boxes"), 1: tensor("labels", "int64"), 2: tensor("scores")}
    assert choose_item_outputs(outputs) == {2}
    del outputs[2]
    assert (choose_item_outputs(outputs), choose_item_outputs({})) == ({0}, set())
