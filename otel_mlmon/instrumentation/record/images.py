"""What an image looked like, in eight numbers: none of its pixels leave.

Brightness is the mean and contrast the standard deviation of all copied pixels of all colour channels, alpha left out;
red, green and blue are the means of their channel where there are three. uint8 is scaled to [0, 1]; a float is taken as
it is, since a model's own normalisation is part of what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.call.call import Item, Tensor, image_step

Features = dict[str, NDArray[np.float64]]


def image_features(tensor: Tensor, items: Sequence[Item]) -> Features:
    """Features by name of every image copied, each of shape (images,); NaN where a pixel was not a number."""
    parts = [part for item in items if type(item) is tuple and (part := _of_call(tensor, item)) is not None]
    if not parts:
        return {}
    table = np.concatenate(parts)
    named = zip(semconv.IMAGE_FEATURES, table.T, strict=True)
    has_colours = _channels(tensor, items) == 3
    return {name: column for name, column in named if has_colours or name not in semconv.IMAGE_FEATURES[-3:]}


def _channels(tensor: Tensor, items: Sequence[Item]) -> int:
    axis = 1 if tensor.layout == "nchw" else 3
    return next((item[0][axis] for item in items if type(item) is tuple), 0)


def _of_call(tensor: Tensor, item: tuple[Any, Any]) -> NDArray[np.float64] | None:
    """Shape (images, 8)."""
    shape, data = item
    pixels = _pixels(tensor, shape, data)
    if pixels is None:
        return None
    height, width = shape[2:] if tensor.layout == "nchw" else shape[1:3]
    if tensor.dtype == "uint8":
        pixels = pixels / 255.0
    colours = pixels[:, :3] if pixels.shape[1] == 4 else pixels
    table = np.empty((len(pixels), len(semconv.IMAGE_FEATURES)))
    with np.errstate(all="ignore"):  # an image of NaN or infinities is a missing one, not a warning
        table[:, 0] = colours.mean(axis=(1, 2, 3), dtype=np.float64)
        table[:, 1] = colours.std(axis=(1, 2, 3), dtype=np.float64)
        table[:, 5:] = colours.mean(axis=(2, 3), dtype=np.float64) if colours.shape[1] == 3 else np.nan
    table[:, 2], table[:, 3], table[:, 4] = width, height, width / height
    return table


def _pixels(tensor: Tensor, shape: Sequence[int], data: bytes) -> NDArray[Any] | None:
    """The copied pixels, shape (images, channels, height, width)."""
    first = tensor.layout == "nchw"
    height, width = shape[2:] if first else shape[1:3]
    if not data or not height or not width:
        return None
    step = image_step(height, width)
    thin = (-(-height // step), -(-width // step))
    channels = shape[1] if first else shape[3]
    pixels = np.frombuffer(data, dtype=tensor.dtype)
    if first:
        return pixels.reshape(-1, channels, *thin)
    return pixels.reshape(-1, *thin, channels).transpose(0, 3, 1, 2)
