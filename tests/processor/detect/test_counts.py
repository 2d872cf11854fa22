from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.detect.counts import build_samples, compute_chi_squared_tail


def test_the_quantities_of_two_samples() -> None:
    samples = build_samples(np.array([[3, 0, 1], [2, 2, 0]]), np.array([[0, 0, 4], [0, 0, 0]]))
    assert samples.counts.tolist() == [[[3.0, 0.0, 1.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]]
    assert samples.totals.tolist() == [[[4.0], [0.0]], [[4.0], [0.0]]]
    assert samples.shares.tolist() == [[[0.75, 0.0, 0.25], [0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    assert samples.moved.tolist() == [[-0.75, 0.0, 0.75], [0.0, 0.0, 0.0]]
    assert samples.expected.tolist() == [[0.375, 1.0, 0.625], [1.0, 1.0, 1.0]]
    assert samples.freedom.tolist() == [1, 0]
    assert samples.size.tolist() == [2.0, 0.0]
    assert samples.unit.tolist() == [0.5, 0.0]


@pytest.mark.parametrize("current", [[1, 2], [1, 2, 3, 4], [[1, 2, 3]]])
def test_other_bins_are_refused(current: list[int]) -> None:
    with pytest.raises(BinMismatchError):
        build_samples(np.array([1, 2, 3]), np.array(current))


def test_no_samples_are_refused() -> None:
    with pytest.raises(BinMismatchError):
        build_samples(np.array(1), np.array(1))


def test_the_tail_without_a_degree_of_freedom_is_one() -> None:
    assert compute_chi_squared_tail(np.array([0.0, 3.84]), np.array([0, 1])).tolist() == [
        1.0,
        pytest.approx(0.05, abs=1e-3),
    ]
