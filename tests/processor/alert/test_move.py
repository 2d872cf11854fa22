"""The words that tell the effect of a move of numbers, on distributions of a known effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.alert.move import find_moved_bins, is_move_of_spread
from otel_mlmon.testing import SimulatedProcessor

N = 20_000


def words(before: Any, after: Any, missing: int = 0) -> tuple[str, str, tuple[str, ...]]:
    """Reference and current data of the cause, and its details, of a feature that moved so."""
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 1000}}}}) as processor:
        for pane in range(40):
            values = before if pane < 20 else after
            processor.now_ns += 10 * 10**9
            part = values[pane % 20 :: 20].tolist()
            processor.send_counts(
                "shop", labels={"a": 100}, features={"age": part}, missing={"age": missing if pane >= 20 else 0}
            )
            processor.advance()
        processor.advance(60)
        causes = processor.document()["alerts"][0]["causes"]
        (cause,) = [cause for cause in causes if cause["stream"] == "input.age"]
        return cause["reference"], cause["current"], tuple(cause["details"])


@pytest.fixture(scope="module")
def normal() -> Any:
    return np.random.default_rng(1).normal(14.2, 3.0, N)


def test_a_shift_is_told_by_the_mean(normal: Any) -> None:
    before, now, _ = words(normal, normal + 3)
    assert (before, now) == ("mean 14.1", "mean 17.2")


def test_another_spread_is_told_by_the_middle_half_and_never_by_the_mean(normal: Any) -> None:
    wider = 14.2 + (normal - 14.2) * 4 - 0.1
    before, now, details = words(normal, wider)
    assert before.startswith("middle half 12")
    assert float(now.split(" … ")[0].lstrip("≤ ")) < 11
    assert not any("mean" in text for text in (before, now, *details))


def test_values_that_became_one_are_told_by_their_place(normal: Any) -> None:
    before, now, details = words(normal, np.full(N, 14.1))
    assert before.startswith("middle half 12")
    assert all(13 < float(quartile) < 15 for quartile in now.split(" … "))
    assert not any("mean" in text for text in (before, now, *details))


def test_missing_values_are_told_as_such(normal: Any) -> None:
    assert words(normal, normal, missing=1000)[:2] == ("missing: 0 %", "50 %")


def test_two_humps_are_told_by_the_gap_between_them(normal: Any) -> None:
    humps = np.where(np.arange(N) % 2, 5.0, 23.4) + np.random.default_rng(2).normal(0, 0.5, N)
    before, now, details = words(normal, humps)
    assert before.startswith("middle half ")
    assert not any("mean" in text for text in (before, now, *details))


@given(st.lists(st.integers(0, 50), min_size=3, max_size=12), st.lists(st.integers(0, 50), min_size=3, max_size=12))
def test_no_stretch_explains_more_than_the_one_that_is_found(reference: list[int], current: list[int]) -> None:
    size = min(len(reference), len(current))
    shares = [np.array(counts[:size], dtype=float) + 1 for counts in (reference, current)]
    growth = (shares[1] / shares[1].sum() - shares[0] / shares[0].sum()).tolist()
    stretch = find_moved_bins(growth)
    best = max(
        abs(sum(growth[first:last])) for first in range(size) for last in range(first + 1, size + 1)
        if last - first < size
    )  # fmt: skip
    assert abs(stretch.growth) == pytest.approx(best, abs=1e-8)
    assert abs(stretch.growth) <= sum(map(abs, growth)) / 2 + 1e-9
    assert is_move_of_spread(stretch, [1.0] * size) <= (0 < stretch.first <= stretch.last < size - 1)
