"""Traffic is made of real images, independent draws, and what the scene says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.demo.traffic import COMMON_DIGIT, SCENES, ImageTraffic, load_images

IMAGES, LABELS = load_images()


def digits_of(drawn: np.ndarray, brightness_ratio: float) -> np.ndarray:
    """Which digits were drawn, looked up by their pixels."""
    label_of = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    levels = np.rint(drawn / brightness_ratio * 16).astype(np.uint8)
    return np.array([label_of[image.tobytes()] for image in levels])


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 50), act=st.sampled_from(sorted(SCENES)), seed=st.integers(0, 2**32 - 1))
def test_every_draw_is_a_batch_a_model_can_take(n: int, act: str, seed: int) -> None:
    images = ImageTraffic(IMAGES, LABELS, np.random.default_rng(seed)).draw_images(n, act)
    assert (images.shape, images.dtype) == ((n, 1, 8, 8), np.dtype(np.float32))
    assert images.flags.c_contiguous
    assert np.all((images >= 0) & (images <= SCENES[act].brightness_ratio))


@pytest.mark.parametrize("act", ["learning", "calm", "recovery"])
def test_calm_traffic_is_uniform(act: str) -> None:
    drawn = ImageTraffic(IMAGES, LABELS, np.random.default_rng(1)).draw_images(10_000, act)
    shares = np.bincount(digits_of(drawn, 1.0), minlength=10) / 10_000
    held = np.bincount(LABELS, minlength=10) / len(LABELS)
    assert np.abs(shares - held).max() < 0.015  # five standard deviations
    assert drawn.mean() == pytest.approx(IMAGES.mean() / 16, abs=0.003)


def test_shifted_traffic_is_darker_and_shows_one_digit_more() -> None:
    drawn = ImageTraffic(IMAGES, LABELS, np.random.default_rng(2)).draw_images(10_000, "shift")
    digits = digits_of(drawn, 0.55)
    assert (digits == COMMON_DIGIT).mean() == pytest.approx(0.5 + 0.5 * (LABELS == COMMON_DIGIT).mean(), abs=0.025)
    assert drawn.mean() == pytest.approx(0.55 * IMAGES.mean() / 16, abs=0.005)


def test_the_same_seed_gives_the_same_traffic() -> None:
    first, second, other = (
        ImageTraffic(IMAGES, LABELS, np.random.default_rng(seed)).draw_images(20, "shift") for seed in (5, 5, 6)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_an_unknown_act_is_refused() -> None:
    with pytest.raises(KeyError, match="matinee"):
        ImageTraffic(IMAGES, LABELS, np.random.default_rng(0)).draw_images(1, "matinee")
