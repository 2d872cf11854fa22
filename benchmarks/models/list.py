"""The models of the table, in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.models import catalogue, exported, learners
from benchmarks.models.catalogue import Model


def _rapidocr() -> list[Model]:
    line = "probabilities of characters by step (CTC)"
    return [
        catalogue.rapidocr("*cls*.onnx", "direction of a text line", (192, 48), ""),
        catalogue.rapidocr("*det*.onnx", "text detection", (160, 160), "map of probabilities of text"),
        catalogue.rapidocr("*rec*.onnx", "text recognition", (160, 48), line),
    ]


MODELS: Final[Sequence[Callable[[], list[Model]]]] = (
    lambda: [catalogue.orientation()],
    lambda: [catalogue.orientation(is_int8=True)],
    lambda: [catalogue.orinet()],
    lambda: [catalogue.orinet(is_int8=True)],
    lambda: [catalogue.open_nsfw()],
    lambda: [catalogue.nudenet()],
    lambda: [catalogue.layout()],
    _rapidocr,
    lambda: [catalogue.captcha()],
    lambda: [catalogue.silero()],
    lambda: [catalogue.wake_word()],
    lambda: [catalogue.timer()],
    lambda: [catalogue.speech_embedding()],
    lambda: [catalogue.spectrogram()],
    lambda: [catalogue.notes()],
    lambda: [catalogue.magika()],
    lambda: [exported.language()],
    exported.scikit_learn,
    learners.unlabelled,
    learners.boosted,
)
