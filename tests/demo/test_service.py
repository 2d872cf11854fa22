"""The served process: acts by line, a steady rate, no bursts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from otel_mlmon.demo.service import ActReader, serve_model
from otel_mlmon.demo.traffic import ImageTraffic, load_images


def make_traffic() -> ImageTraffic:
    return ImageTraffic(*load_images(), np.random.default_rng(3))


def test_acts_follow_the_lines_to_their_end() -> None:
    acts = ActReader()
    names: list[str] = []

    def lines() -> Iterator[str]:
        for line in ("calm\n", "intermission\n", "shift\n"):
            yield line
            names.append(acts.current)

    assert (acts.current, acts.over.is_set()) == ("learning", False)
    acts.follow_lines(lines())
    assert (names, acts.over.is_set()) == (["calm", "calm", "shift"], True)


def test_acts_are_over_when_the_input_breaks() -> None:
    acts = ActReader()

    def broken() -> Iterator[str]:
        yield "calm\n"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        acts.follow_lines(broken())
    assert acts.over.is_set()


def test_images_are_served_one_by_one_at_the_rate() -> None:
    acts = ActReader()
    shapes: list[tuple[int, ...]] = []

    def predict(image: np.ndarray) -> None:
        shapes.append(image.shape)
        if len(shapes) == 40:
            acts.over.set()

    began_s = time.monotonic()
    served = serve_model(predict, make_traffic(), acts, rate_per_s=400)
    # Ten groups of four, ten milliseconds apart: not faster, however slow the machine.
    assert time.monotonic() - began_s >= 0.09
    assert (served, shapes) == (40, [(1, 1, 8, 8)] * 40)


def test_the_act_decides_what_is_seen() -> None:
    acts = ActReader(first="shift")
    brightest: list[float] = []

    def predict(image: np.ndarray) -> None:
        brightest.append(float(image.max()))
        if len(brightest) == 20:
            acts.over.set()

    serve_model(predict, make_traffic(), acts, rate_per_s=2000)
    assert max(brightest) == pytest.approx(0.55)


def test_a_delay_is_not_made_up_for_by_a_burst() -> None:
    acts = ActReader()
    now_s = [0.0]
    called_at_s: list[float] = []

    def predict(_image: np.ndarray) -> None:
        called_at_s.append(now_s[0])
        now_s[0] += 5.0 if len(called_at_s) == 1 else 0.01
        if len(called_at_s) == 4:
            acts.over.set()

    # One image a group; the first call takes 5 s, in which 500 were due: the next ones come as usual.
    assert serve_model(predict, make_traffic(), acts, rate_per_s=100, clock=lambda: now_s[0]) == 4
    assert called_at_s == pytest.approx([0.0, 5.0, 5.01, 5.02])
