from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.images import compute_image_features, name_color_channels
from otel_mlmon.instrumentation.runtime.call import Layout, Tensor
from otel_mlmon.instrumentation.runtime.input_sample import compute_sample_positions
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import _copy_pixels


def sampled(images: np.ndarray) -> np.ndarray:
    """The pixels that are copied of images of layout `nchw`, shape (images, channels, pixels)."""
    positions = compute_sample_positions(*images.shape[2:])
    flat = images.reshape(*images.shape[:2], -1)
    return flat if positions is None else flat[:, :, positions]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 40), (3, 224), (4, 64)])
def test_features_are_those_of_the_copied_pixels(layout: Layout, channels: int, size: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, channels, size, size + 8), dtype=np.uint8)
    given = pixels if layout == "nchw" else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    tensor = Tensor(name="image", layout=layout, dtype="uint8")
    item = _copy_pixels(given, dtype=np.dtype(np.uint8), channels_first=layout == "nchw")
    found = compute_image_features(tensor, [item, None])
    thin = sampled(pixels[:, :3]) / 255.0
    expected = {
        "image.brightness": thin.mean(axis=(1, 2)),
        "image.contrast": thin.std(axis=(1, 2)),
        "image.width": np.full(2, size + 8.0),
        "image.height": np.full(2, float(size)),
        "image.aspect_ratio": np.full(2, (size + 8) / size),
    }
    if channels == 3:
        expected |= {f"image.channel_{at}": thin[:, at].mean(axis=1) for at in range(3)}
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_no_images() -> None:
    tensor = Tensor(name="image", layout="nchw", dtype="float32")
    assert compute_image_features(tensor, [None, ((0, 3, 8, 8), b"")]) == {}


def test_many_images_of_several_shapes_with_a_ruined_one() -> None:
    generator = np.random.default_rng(2)
    given = [generator.normal(size=(2, 3, size, size)).astype(np.float32) for size in (64, 8, 64)]
    given[1][0, 0, 0, 0] = np.nan
    tensor = Tensor(name="image", layout="nchw", dtype="float32")
    found = compute_image_features(
        tensor, [_copy_pixels(each, dtype=np.dtype(np.float32), channels_first=True) for each in given]
    )
    thin = [sampled(given[at]) for at in (0, 2, 1)]  # by shape, in order of appearance
    means = np.concatenate([each.astype(np.float64).mean(axis=(1, 2)) for each in thin])
    np.testing.assert_allclose(found["image.brightness"], means, rtol=1e-9)
    deviations = np.concatenate([each.astype(np.float64).std(axis=(1, 2)) for each in thin])
    np.testing.assert_allclose(found["image.contrast"], deviations, rtol=1e-9)
    assert found["image.width"].tolist() == [64.0] * 4 + [8.0] * 2


@pytest.mark.parametrize(
    ("name", "metadata", "names"),
    [
        ("image", {}, semconv.CHANNEL_FEATURES),
        ("rgb", {}, semconv.COLOUR_FEATURES),
        ("input_rgb_uint8", {}, semconv.COLOUR_FEATURES),
        ("bgr_image", {}, semconv.COLOUR_FEATURES[::-1]),
        ("image", {"Image.BitmapPixelFormat": "Bgr8"}, semconv.COLOUR_FEATURES[::-1]),
        ("image", {"Image.BitmapPixelFormat": "Rgba8"}, semconv.COLOUR_FEATURES),
        ("image", {"color_format": "RGB"}, semconv.COLOUR_FEATURES),
        ("image", {"channel_order": "BGR888"}, semconv.COLOUR_FEATURES[::-1]),
        ("image", {"Image.BitmapPixelFormat": "Gray8"}, semconv.CHANNEL_FEATURES),
        ("image", {"description": "trained on rgb"}, semconv.CHANNEL_FEATURES),
        ("rgb", {"color_space": "bgr"}, semconv.CHANNEL_FEATURES),
        ("argbx", {}, semconv.CHANNEL_FEATURES),
    ],
)
def test_colours_are_named_only_where_the_model_says_their_order(
    name: str, metadata: dict[str, str], names: tuple[str, ...]
) -> None:
    assert name_color_channels(name, metadata) == names
