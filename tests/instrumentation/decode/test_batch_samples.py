"""Rows of outputs against the samples that came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.instrumentation.decode.batch import SampleSizes, compute_batch_sizes
from otel_mlmon.instrumentation.runtime.call import Tensor

ROWS = Tensor(name="x", layout="rows", dtype="float32")


def shapes(*sizes: Any, layout: Any = "shape") -> tuple[Tensor, list[Any]]:
    """One input by its shape at each call; None of a call that failed."""
    items = [None if size is None else (size, b"") for size in sizes]
    return Tensor(name="x", layout=layout, dtype="float32"), items


def samples(*inputs: tuple[Tensor, Any]) -> SampleSizes:
    return SampleSizes([tensor for tensor, _ in inputs], [items for _, items in inputs])


@pytest.mark.parametrize(
    ("inputs", "sizes", "are_samples"),
    [
        ([shapes((3, 2), (1, 2))], [3, 1], True),
        ([shapes((3, 2), (1, 2))], [3, 2], False),  # more rows
        ([shapes((3, 2), (4, 2))], [1, 1], False),  # fewer
        ([shapes((3, 2), (4, 2))], [3, 0], True),  # a call of which nothing is known
        ([shapes((1, 25, 8))], [25], True),  # (time, samples, features), or tokens
        ([shapes((25, 1, 8))], [1], True),
        ([shapes((7,))], [1], True),  # one vector
        ([shapes((7,))], [2], False),
        ([shapes((224, 200, 3))], [1], True),  # one image
        ([shapes((224, 200, 3))], [2], False),
        ([shapes((2, 3)), shapes((40, 5))], [40], True),  # one row a region
        ([shapes((2, 3)), shapes((40, 5))], [41], False),
        ([], [3], None),
        ([shapes(None)], [0], None),
    ],
)
def test_rows_are_those_of_samples(inputs: list[Any], sizes: list[int], are_samples: bool | None) -> None:
    assert samples(*inputs).has_row_per_sample(np.array(sizes)) is are_samples


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 4), st.integers(1, 3))
def test_one_call_of_other_rows_is_seen(sizes: list[int], at: int, more: int) -> None:
    inputs = samples(shapes(*((size, 2) for size in sizes)))
    rows = np.array(sizes)
    assert inputs.has_row_per_sample(rows) is True
    rows[at % len(rows)] += more
    assert inputs.has_row_per_sample(rows) is False


def test_sizes_that_are_unknown_are_those_of_the_first_input_that_knows() -> None:
    inputs = samples(shapes((), (), None), shapes((3, 2), (4, 2), None))
    assert inputs.fill_unknown_sizes(np.array([7, 0, 0])).tolist() == [7, 4, 0]
    assert compute_batch_sizes(*shapes((3, 2), layout="none")).tolist() == [0]
