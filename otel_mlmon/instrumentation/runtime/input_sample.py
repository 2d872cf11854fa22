"""Chooses a sample of an input's values, such as pixels of an image, that stands for all of them.

A regular grid sees stripes of its own period as a plain colour. These positions are multi-jittered: one in each cell of
a grid of 28 by 28, and at the same time one in each of 784 columns and one in each of 784 rows. Of stripes of 0 and 1,
periods of 2 to 64 pixels, mean and standard deviation were off by less than 0.05 where they are upright or level and
half of each period is 1, in images of nine usual sizes; by less than 0.1 for other shares, slopes and sizes.
Source: Chiu, Shirley and Wang, Multi-jittered sampling, Graphics Gems IV, 1994.
"""

from __future__ import annotations

import functools
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.types import Floats

CELLS: Final = 28
"""Cells of the grid both ways."""

MAX_WHOLE_PIXELS: Final = 1024
"""Images of no more pixels are copied whole."""

MAX_SIZES: Final = 256
"""Sizes of images whose positions are kept."""

WIDE_VALUES: Final = 256
"""Values that are sampled of a wide row, about."""

Positions: TypeAlias = "NDArray[np.intp]"


@functools.lru_cache(MAX_SIZES)
def compute_sample_positions(height: int, width: int) -> Positions | None:
    """Returns the positions of the pixels that are sampled of an image, shape (784,); None for all pixels."""
    if height * width <= MAX_WHOLE_PIXELS:
        return None
    x, y = _compute_sampling_points()
    return np.sort((y * height).astype(np.intp) * width + (x * width).astype(np.intp))


def count_sampled_pixels(height: int, width: int) -> int:
    """Returns how many pixels are sampled of an image of a given size."""
    pixels = height * width
    return pixels if pixels <= MAX_WHOLE_PIXELS else CELLS * CELLS


@functools.lru_cache(MAX_SIZES)
def compute_sample_interval(width: int) -> int:
    """Returns the step between sampled values of a wide row: a prime, to match no period in the values."""
    interval = width // WIDE_VALUES
    if interval < 2:
        return 1
    while any(interval % divisor == 0 for divisor in range(2, int(interval**0.5) + 1)):
        interval -= 1
    return interval


@functools.lru_cache(1)
def _compute_sampling_points() -> tuple[Floats, Floats]:
    """Computes the sampling points in the unit square, x and y of shape (784,) each."""
    generator = np.random.default_rng(7)  # not the host's, and the same everywhere
    places, cells = np.tile(np.arange(CELLS), (CELLS, 1)), np.arange(CELLS)
    jitter = generator.random((2, CELLS, CELLS))
    x = cells[:, None] + (generator.permuted(places, axis=1) + jitter[0]) / CELLS
    y = cells[None, :] + (generator.permuted(places, axis=1).T + jitter[1]) / CELLS
    return x.ravel() / CELLS, y.ravel() / CELLS
