"""Summarizes each input image in eight numbers, such as brightness; no pixels leave the process.

Brightness is the mean and contrast the standard deviation of all copied pixels of all colour channels, without alpha.
Where there are three, the mean of each is a feature too: red, green and blue only where the model says their order,
since images read by OpenCV have blue first. uint8 is scaled to [0, 1]; a float is taken as it is, since a model's own
normalisation is part of its input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.runtime.call import Item, Tensor
from otel_mlmon.instrumentation.runtime.input_sample import count_sampled_pixels
from otel_mlmon.types import Floats

CHUNK_BYTES: Final = 1 << 18
"""Images are processed in chunks that stay in a core's cache."""


_ORDER: Final = re.compile(r"(?:^|[^a-z])(rgb|bgr)a?(?:8|888|24|32)?(?:$|[^a-z])")
_ORDER_KEYS: Final = re.compile(
    r"(?:bitmappixelformat|pixel_?format|colou?r_?(?:format|order|space|mode)|channel_?order)$"
)


def name_color_channels(input_name: str, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the feature names of an image's three colour channels, by colour if the model tells their order.

    Args:
        input_name: The name of the input, such as `rgb_image`.
        metadata: The model's; `Image.BitmapPixelFormat` is ONNX's own key (onnx, docs/MetadataProps.md).
    """
    formats = [value for key, value in metadata.items() if _ORDER_KEYS.search(key.lower())]
    orders = {match[1] for text in (input_name, *formats) if (match := _ORDER.search(text.lower()))}
    if len(orders) != 1:
        return semconv.CHANNEL_FEATURES
    return semconv.COLOUR_FEATURES if orders == {"rgb"} else semconv.COLOUR_FEATURES[::-1]


def compute_image_features(
    tensor: Tensor, items: Sequence[Item], channels: Sequence[str] = semconv.CHANNEL_FEATURES
) -> dict[str, Floats]:
    """Computes features such as brightness of all copied images, by name, shape (images,) each.

    Args:
        tensor: The input.
        items: Its copies.
        channels: The names of the means of three colour channels.
    """
    images_by_shape: dict[tuple[int, ...], list[bytes]] = {}
    for item in items:
        if type(item) is tuple and item[1]:
            images_by_shape.setdefault(item[0][1:], []).append(item[1])  # type: ignore[arg-type]
    parts = [part for shape, data in images_by_shape.items() for part in _compute_feature_tables(tensor, shape, data)]
    if not parts:
        return {}
    has_colours = 3 in {_count_channels(tensor, shape) for shape in images_by_shape}
    names = (*semconv.IMAGE_FEATURES, *(channels if has_colours else ()))
    return dict(zip(names, np.concatenate(parts, axis=1), strict=False))


def _count_channels(tensor: Tensor, shape: Sequence[int]) -> int:
    return shape[0] if tensor.layout == "nchw" else shape[2]


def _compute_feature_tables(tensor: Tensor, shape: Sequence[int], data: Sequence[bytes]) -> Iterator[Floats]:
    """Yields the features of copied images, shape (8, images), one table for each image shape."""
    height, width = shape[1:] if tensor.layout == "nchw" else shape[:2]
    channels = _count_channels(tensor, shape)
    if not height or not width or not channels:
        return
    pixels = count_sampled_pixels(height, width)
    image_bytes = channels * pixels * np.dtype(tensor.dtype).itemsize
    chunk = max(1, CHUNK_BYTES // max(map(len, data)))
    for first in range(0, len(data), chunk):
        images = np.frombuffer(b"".join(data[first : first + chunk]), dtype=tensor.dtype)
        if images.nbytes % image_bytes:
            continue
        array_shape = (-1, channels, pixels) if tensor.layout == "nchw" else (-1, pixels, channels)
        means, variances = _compute_channel_moments(
            images.reshape(array_shape), axis=2 if tensor.layout == "nchw" else 1
        )
        yield _build_feature_table(means, variances, (height, width), 255.0 if tensor.dtype == "uint8" else 1.0)


def _compute_channel_moments(images: NDArray[Any], *, axis: int) -> tuple[Floats, Floats]:
    """Computes mean and variance of each colour channel of images, shape (images, channels)."""
    images = images.astype(np.float64)
    with np.errstate(all="ignore"):  # an image of NaN or infinities is a missing one, not a warning
        means = images.mean(axis=axis)
        images -= np.expand_dims(means, axis)
        variances = np.einsum("icp,icp->ic" if axis == 2 else "ipc,ipc->ic", images, images) / images.shape[axis]
    return means, variances


def _build_feature_table(means: Floats, variances: Floats, size: tuple[int, int], scale: float) -> Floats:
    colours = 3 if means.shape[1] == 4 else means.shape[1]
    means, variances = means[:, :colours] / scale, variances[:, :colours] / scale**2
    table = np.full((len(semconv.IMAGE_FEATURES) + 3, len(means)), np.nan)
    with np.errstate(all="ignore"):
        table[0] = means.mean(axis=1)
        # The variance of all is the mean of the variances plus the variance of the means.
        table[1] = np.sqrt(variances.mean(axis=1) + means.var(axis=1))
    height, width = size
    table[2], table[3], table[4] = width, height, width / height
    if colours == 3:
        table[5:] = means.T
    return table
