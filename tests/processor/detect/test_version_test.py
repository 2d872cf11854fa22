"""Whether two versions differ: seeded, with the counts of false and missed differences."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect.version_test import has_stream_moved
from otel_mlmon.types import Floats

SHARES = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.01, 0.005, 0.005])
LEVEL = 0.001 / 10


def count_moves(shares: Floats, *, runs: int, burst: int = 1, design_effect: float = 1.0) -> int:
    random = np.random.default_rng(3)
    return sum(
        has_stream_moved(
            random.multinomial(3600 // burst, SHARES) * burst,
            random.multinomial(1000 // burst, shares) * burst,
            design_effect=design_effect,
            tolerance=0.02,
            level=LEVEL,
        )
        for _ in range(runs)
    )


def test_equal_versions_do_not_differ_also_in_bursts() -> None:
    # 4,000 streams of equal versions: at a ten-thousandth each 0.4 are expected where nothing is tolerated.
    assert count_moves(SHARES, runs=4000) <= 1
    assert count_moves(SHARES, runs=1000, burst=20, design_effect=20.0) <= 1


@pytest.mark.parametrize(("move", "least"), [(0.3, 200), (0.15, 200), (0.1, 180)])
def test_a_move_is_found(move: float, least: int) -> None:
    shares = SHARES.copy()
    shares[0] -= move
    shares[3] += move
    assert count_moves(shares, runs=200) >= least


@pytest.mark.parametrize("counts", [([0, 0], [5, 5]), ([5, 5], [0, 0]), ([5, 0], [7, 0])])
def test_without_values_or_with_one_bin_there_is_no_difference(counts: tuple[list[int], list[int]]) -> None:
    first, second = (np.array(row) for row in counts)
    assert not has_stream_moved(first, second, design_effect=1.0, tolerance=0.0, level=LEVEL)
