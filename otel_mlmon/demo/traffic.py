"""The images that the demo sends to its model: handwritten digits, as a camera sees them in different light.

Images are drawn independently and with replacement, so nothing but a change of scene makes the streams drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

IMAGES_FILE: Final = Path(__file__).with_name("digits.npz")
GREY_LEVELS: Final = 16
COMMON_DIGIT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScene:
    """Describes the images of one act of the demo: how bright they are, and how often one digit shows."""

    brightness_ratio: float = 1.0
    """The factor for every pixel; (0, 1]."""
    common_ratio: float = 0.0
    """The share of additional images that show `COMMON_DIGIT`; [0, 1)."""


CALM: Final = ImageScene()
SHIFTED: Final = ImageScene(brightness_ratio=0.55, common_ratio=0.5)

SCENES: Final[Mapping[str, ImageScene]] = MappingProxyType(
    {"learning": CALM, "calm": CALM, "shift": SHIFTED, "recovery": CALM}
)
"""The scene of each act."""


def load_images(path: Path = IMAGES_FILE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Loads the demo's images of digits, shape (M, 1, 8, 8), 0 … 16, and the digit of each, shape (M,)."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["images"], archive["labels"]


class ImageTraffic:
    """Draws an endless random sequence of images for the demo's model.

    Runs on: one thread.

    Args:
        images: Shape (M, 1, 8, 8), values 0 … 16.
        labels: The digit that each image shows, shape (M,); `COMMON_DIGIT` is among them.
        rng: The random generator.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator) -> None:
        self._images = images.astype(np.float32) / np.float32(GREY_LEVELS)
        self._common = np.flatnonzero(labels == COMMON_DIGIT)
        self._rng = rng

    def draw_images(self, n: int, act: str) -> NDArray[np.float32]:
        """Draws the next `n` images of one act of the demo, shape (n, 1, 8, 8), values in [0, 1].

        Raises:
            KeyError: There is no such act.
        """
        scene = SCENES[act]
        indices = self._rng.integers(len(self._images), size=n)
        is_common = self._rng.random(n) < scene.common_ratio
        indices[is_common] = self._rng.choice(self._common, size=int(is_common.sum()))
        return self._images[indices] * np.float32(scene.brightness_ratio)
