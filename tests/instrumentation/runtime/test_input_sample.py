"""Periodic images and rows do not fool the sample that stands for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.runtime.input_sample import (
    CELLS,
    MAX_WHOLE_PIXELS,
    WIDE_VALUES,
    compute_sample_interval,
    compute_sample_positions,
    count_sampled_pixels,
)

SIZES = [(224, 224), (64, 64), (640, 640), (480, 640), (1080, 1920), (299, 299), (96, 128), (100, 333), (512, 512)]
STRIPES = 0.05
"""How much mean and standard deviation of upright or level stripes of 0 and 1 may be off."""
SLANTED = 0.1


def off_by(pattern: np.ndarray) -> tuple[float, float]:
    """How much mean and standard deviation of the sample differ from those of the image."""
    positions = compute_sample_positions(*pattern.shape)
    sample = pattern.ravel() if positions is None else pattern.ravel()[positions]
    return abs(sample.mean() - pattern.mean()), abs(sample.std() - pattern.std())


@pytest.mark.parametrize("period", range(2, 65))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_stripes_of_any_period_keep_mean_and_contrast(size: tuple[int, int], period: int) -> None:
    rows, columns = np.ogrid[: size[0], : size[1]]
    for axis in (rows, columns):
        stripes = (axis % period < period // 2).astype(np.float32)
        assert max(off_by(np.broadcast_to(stripes, size))) < STRIPES


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(16, 700),
    width=st.integers(16, 700),
    period=st.integers(2, 64),
    phase=st.integers(0, 63),
    share=st.floats(0.01, 0.99),
    slope=st.sampled_from([(1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 3)]),
)
def test_patterns_of_any_slope_keep_mean_and_contrast(
    height: int, width: int, period: int, phase: int, share: float, slope: tuple[int, int]
) -> None:
    rows, columns = np.ogrid[:height, :width]
    pattern = ((slope[0] * rows + slope[1] * columns + phase) % period < max(1, share * period)).astype(np.float32)
    assert max(off_by(pattern)) < SLANTED


def test_boards_of_eight_pixels_keep_mean_and_contrast() -> None:
    rows, columns = np.indices((224, 224))
    assert max(off_by(((rows % 8 == 0) & (columns % 8 == 0)).astype(float))) < STRIPES
    assert max(off_by((rows // 8 + columns // 8) % 2 == 0)) < STRIPES


@given(height=st.integers(0, 3000), width=st.integers(0, 3000))
def test_positions_lie_within_the_image_in_order(height: int, width: int) -> None:
    positions = compute_sample_positions(height, width)
    assert (positions is None) is (height * width <= MAX_WHOLE_PIXELS)
    if positions is None:
        assert count_sampled_pixels(height, width) == height * width
        return
    assert positions.shape == (CELLS * CELLS,) == (count_sampled_pixels(height, width),)
    assert (np.diff(positions) >= 0).all()
    assert (positions[0] >= 0) & (positions[-1] < height * width)


def test_the_positions_are_the_same_in_every_process() -> None:
    positions = compute_sample_positions(224, 224)
    assert positions is not None
    assert positions[:4].tolist() == [25, 38, 61, 187]


@given(width=st.integers(1, 10_000_000))
def test_a_step_within_a_row_is_no_product(width: int) -> None:
    interval = compute_sample_interval(width)
    assert all(interval % divisor for divisor in range(2, min(interval, 1000)))
    values = -(-width // interval)
    assert values <= 4 * WIDE_VALUES
    assert values >= min(width, WIDE_VALUES)
