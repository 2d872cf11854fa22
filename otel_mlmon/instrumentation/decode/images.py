"""What an image looked like, in eight numbers: none of its pixels leave.

Brightness is the mean and contrast the standard deviation of all copied pixels of all colour channels, alpha left out;
red, green and blue are the means of their channel where there are three. uint8 is scaled to [0, 1]; a float is taken as
it is, since a model's own normalisation is part of what it sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.runtime.call import Item, Tensor, image_step

Features = dict[str, NDArray[np.float64]]


def image_features(tensor: Tensor, items: Sequence[Item]) -> Features:
    """Features by name of every image copied, each of shape (images,); NaN where a pixel was not a number."""
    of_shape: dict[tuple[int, ...], list[bytes]] = {}
    for item in items:
        if type(item) is tuple and item[1]:
            of_shape.setdefault(item[0][1:], []).append(item[1])  # type: ignore[arg-type]
    parts = [part for shape, data in of_shape.items() for part in _of_shape(tensor, shape, data)]
    if not parts:
        return {}
    table = np.concatenate(parts, axis=1)
    named = zip(semconv.IMAGE_FEATURES, table, strict=True)
    has_colours = 3 in {_channels(tensor, shape) for shape in of_shape}
    return {name: column for name, column in named if has_colours or name not in semconv.IMAGE_FEATURES[-3:]}


def _channels(tensor: Tensor, shape: Sequence[int]) -> int:
    return shape[0] if tensor.layout == "nchw" else shape[2]


def _of_shape(tensor: Tensor, shape: Sequence[int], data: Sequence[bytes]) -> Iterator[NDArray[np.float64]]:
    """Shape (8, images) each, of images of one shape."""
    height, width = shape[1:] if tensor.layout == "nchw" else shape[:2]
    channels = _channels(tensor, shape)
    if not height or not width or not channels:
        return
    step = image_step(height, width)
    pixels = -(-height // step) * -(-width // step)
    image_bytes = channels * pixels * np.dtype(tensor.dtype).itemsize
    together = max(1, CHUNK_BYTES // max(map(len, data)))
    for first in range(0, len(data), together):
        images = np.frombuffer(b"".join(data[first : first + together]), dtype=tensor.dtype)
        if images.nbytes % image_bytes:
            continue
        shaped = (-1, channels, pixels) if tensor.layout == "nchw" else (-1, pixels, channels)
        sums = _sums(images.reshape(shaped), axis=2 if tensor.layout == "nchw" else 1)
        yield _table(sums, (height, width), 255.0 if tensor.dtype == "uint8" else 1.0)


CHUNK_BYTES: Final = 1 << 18
"""Images are worked on as many at a time as stay in a core's cache."""


def _sums(images: NDArray[Any], *, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean of every channel, and the mean of its squares' distances from it; shape (images, channels)."""
    images = images.astype(np.float64)
    with np.errstate(all="ignore"):  # an image of NaN or infinities is a missing one, not a warning
        means = images.mean(axis=axis)
        images -= np.expand_dims(means, axis)
        spread = np.einsum("icp,icp->ic" if axis == 2 else "ipc,ipc->ic", images, images) / images.shape[axis]
    return means, spread


def _table(
    sums: tuple[NDArray[np.float64], NDArray[np.float64]], size: tuple[int, int], scale: float
) -> NDArray[np.float64]:
    means, spread = sums
    colours = 3 if means.shape[1] == 4 else means.shape[1]
    means, spread = means[:, :colours] / scale, spread[:, :colours] / scale**2
    table = np.full((len(semconv.IMAGE_FEATURES), len(means)), np.nan)
    with np.errstate(all="ignore"):
        table[0] = means.mean(axis=1)
        # The variance of all is the mean of the variances and the variance of the means.
        table[1] = np.sqrt(spread.mean(axis=1) + means.var(axis=1))
    height, width = size
    table[2], table[3], table[4] = width, height, width / height
    if colours == 3:
        table[5:] = means.T
    return table
