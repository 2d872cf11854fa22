"""Summarizes images in eight numbers each: none of their pixels leave the process.

Brightness is the mean and contrast the standard deviation of all copied pixels of all colour channels, without alpha;
red, green and blue are the means of their channel where there are three. uint8 is scaled to [0, 1]; a float is taken as
it is, since a model's own normalisation is part of its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.runtime.call import Item, Tensor, image_step
from otel_mlmon.types import Floats

CHUNK_BYTES: Final = 1 << 18
"""Images are processed in chunks that stay in a core's cache."""


def image_features(tensor: Tensor, items: Sequence[Item]) -> dict[str, Floats]:
    """Computes the features of all copied images by name, each of shape (images,); NaN where a pixel is no number."""
    images_by_shape: dict[tuple[int, ...], list[bytes]] = {}
    for item in items:
        if type(item) is tuple and item[1]:
            images_by_shape.setdefault(item[0][1:], []).append(item[1])  # type: ignore[arg-type]
    parts = [part for shape, data in images_by_shape.items() for part in _feature_tables(tensor, shape, data)]
    if not parts:
        return {}
    columns = dict(zip(semconv.IMAGE_FEATURES, np.concatenate(parts, axis=1), strict=True))
    if 3 not in {_channels(tensor, shape) for shape in images_by_shape}:
        for name in semconv.IMAGE_FEATURES[-3:]:
            del columns[name]
    return columns


def _channels(tensor: Tensor, shape: Sequence[int]) -> int:
    return shape[0] if tensor.layout == "nchw" else shape[2]


def _feature_tables(tensor: Tensor, shape: Sequence[int], data: Sequence[bytes]) -> Iterator[Floats]:
    """Yields tables of shape (8, images), of images of one shape."""
    height, width = shape[1:] if tensor.layout == "nchw" else shape[:2]
    channels = _channels(tensor, shape)
    if not height or not width or not channels:
        return
    step = image_step(height, width)
    pixels = -(-height // step) * -(-width // step)
    image_bytes = channels * pixels * np.dtype(tensor.dtype).itemsize
    chunk = max(1, CHUNK_BYTES // max(map(len, data)))
    for first in range(0, len(data), chunk):
        images = np.frombuffer(b"".join(data[first : first + chunk]), dtype=tensor.dtype)
        if images.nbytes % image_bytes:
            continue
        array_shape = (-1, channels, pixels) if tensor.layout == "nchw" else (-1, pixels, channels)
        means, variances = _channel_moments(images.reshape(array_shape), axis=2 if tensor.layout == "nchw" else 1)
        yield _feature_table(means, variances, (height, width), 255.0 if tensor.dtype == "uint8" else 1.0)


def _channel_moments(images: NDArray[Any], *, axis: int) -> tuple[Floats, Floats]:
    """Computes mean and variance of each channel, shape (images, channels)."""
    images = images.astype(np.float64)
    with np.errstate(all="ignore"):  # an image of NaN or infinities is a missing one, not a warning
        means = images.mean(axis=axis)
        images -= np.expand_dims(means, axis)
        variances = np.einsum("icp,icp->ic" if axis == 2 else "ipc,ipc->ic", images, images) / images.shape[axis]
    return means, variances


def _feature_table(means: Floats, variances: Floats, size: tuple[int, int], scale: float) -> Floats:
    colours = 3 if means.shape[1] == 4 else means.shape[1]
    means, variances = means[:, :colours] / scale, variances[:, :colours] / scale**2
    table = np.full((len(semconv.IMAGE_FEATURES), len(means)), np.nan)
    with np.errstate(all="ignore"):
        table[0] = means.mean(axis=1)
        # The variance of all is the mean of the variances plus the variance of the means.
        table[1] = np.sqrt(variances.mean(axis=1) + means.var(axis=1))
    height, width = size
    table[2], table[3], table[4] = width, height, width / height
    if colours == 3:
        table[5:] = means.T
    return table
