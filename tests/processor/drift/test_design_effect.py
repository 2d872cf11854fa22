from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from otel_mlmon.processor.drift.design_effect import (
    BLOCK_SIZES,
    DesignEffects,
    trimmed_mean_of_chi_squared,
)

SHARES = np.array([0.4, 0.3, 0.2, 0.1])


class DesignEffect:
    """One stream in arrays of its own."""

    def __init__(self, shares: NDArray[np.float64]) -> None:
        self.all = DesignEffects(shares.size)
        self.all.start(0, shares)

    def add(self, counts: NDArray[np.float64], items: float) -> None:
        self.all.add(np.array([0]), counts[None], np.array([items]))

    @property
    def value(self) -> float:
        return float(self.all.value[0])

    @property
    def is_known(self) -> bool:
        return bool(self.all.is_known[0])

    @property
    def estimates(self) -> list[float]:
        return [float(estimate) for estimate in self.all.estimates[0]]

    def to_state(self) -> dict[str, Any]:
        return self.all.to_state(0)

    @classmethod
    def from_state(cls, shares: NDArray[np.float64], state: dict[str, Any]) -> DesignEffect:
        effect = cls(shares)
        effect.all.restore(0, shares, state)
        return effect


def in_runs(rng: np.random.Generator, mean_run: float, items: int) -> NDArray[np.int64]:
    """Labels of `items` items in runs of geometric length; the design effect tends to 2·mean - 1."""
    runs = int(items / mean_run * 1.3) + 50
    lengths = rng.geometric(1.0 / mean_run, runs)
    return np.repeat(rng.choice(4, p=SHARES, size=runs), lengths)[:items]


def feed(effect: DesignEffect, labels: NDArray[np.int64], pane: int) -> None:
    for start in range(0, labels.size - pane + 1, pane):
        counts = np.bincount(labels[start : start + pane], minlength=4).astype(np.float64)
        effect.add(counts, float(pane))


def test_trimmed_mean_against_numerical_integration() -> None:
    for freedom in (1.0, 2.7, 9.0):
        points = (np.arange(200_000) + 0.5) / 200_000 * 0.75
        assert trimmed_mean_of_chi_squared(freedom) == pytest.approx(
            float(chi2.ppf(points, freedom).mean()) / freedom, rel=1e-4
        )


@pytest.mark.parametrize("pane", [1, 7, 100, 1_000])
def test_independent_items_have_none(pane: int) -> None:
    effect = DesignEffect(SHARES)
    feed(effect, np.random.default_rng(5).choice(4, p=SHARES, size=30_000).astype(np.int64), pane)
    assert effect.is_known
    assert 1.0 <= effect.value <= 1.5


@pytest.mark.simulation
@pytest.mark.parametrize(("mean_run", "pane"), [(5, 100), (10, 100), (30, 100), (5, 1_000), (10, 10), (30, 300)])
def test_runs_are_recovered(mean_run: int, pane: int) -> None:
    rng = np.random.default_rng(mean_run)
    found = []
    for _ in range(5):
        effect = DesignEffect(SHARES)
        feed(effect, in_runs(rng, mean_run, 60_000), pane)
        found.append(effect.value)
    truth = 2.0 * mean_run - 1.0
    assert truth / 1.5 <= float(np.median(found)) <= truth * 1.5


def test_a_jump_of_the_shares_is_not_a_burst() -> None:
    rng = np.random.default_rng(3)
    effect = DesignEffect(SHARES)
    for counts in rng.multinomial(100, SHARES, size=100):
        effect.add(counts.astype(np.float64), 100.0)
    before = effect.value
    for counts in rng.multinomial(100, SHARES[::-1], size=100):
        effect.add(counts.astype(np.float64), 100.0)
    assert effect.value <= before + 0.5


def test_known_after_a_thousand_items_and_eight_differences() -> None:
    def panes_needed(items: float) -> int:
        effect = DesignEffect(SHARES)
        panes = 0
        while not effect.is_known:
            effect.add(SHARES * items, items)
            panes += 1
        return panes

    assert [panes_needed(items) for items in (1.0, 50.0, 100.0, 200.0, 5_000.0)] == [1_000, 20, 10, 9, 9]


def test_known_stays_known() -> None:
    effect = DesignEffect(SHARES)
    feed(effect, np.random.default_rng(1).choice(4, p=SHARES, size=2_000).astype(np.int64), 50)
    assert effect.is_known
    for bin_ in (0, 3) * 200:
        effect.add(np.eye(4)[bin_] * 50.0, 50.0)
        assert effect.is_known
    assert effect.value > 20.0


def test_a_constant_stream_is_one() -> None:
    effect = DesignEffect(np.array([1.0]))
    for _ in range(40):
        effect.add(np.array([100.0]), 100.0)
    assert effect.is_known
    assert effect.value == 1.0


def test_state_restores_it_bit_for_bit() -> None:
    rng = np.random.default_rng(8)
    labels = in_runs(rng, 4, 20_000)
    whole, cut = DesignEffect(SHARES), DesignEffect(SHARES)
    feed(whole, labels, 37)
    feed(cut, labels[: 37 * 200], 37)
    restored = DesignEffect.from_state(SHARES, json.loads(json.dumps(cut.to_state())))
    feed(restored, labels[37 * 200 :], 37)
    assert restored.to_state() == whole.to_state()
    assert repr((restored.value, restored.estimates)) == repr((whole.value, whole.estimates))


def test_a_large_pane_speaks_for_the_largest_block_it_fills() -> None:
    effect = DesignEffect(SHARES)
    for counts in np.random.default_rng(2).multinomial(3_300, SHARES, size=200):
        effect.add(counts.astype(np.float64), 3_300.0)
    assert BLOCK_SIZES[3] <= 3_300 < BLOCK_SIZES[4]
    assert [not math.isnan(estimate) for estimate in effect.estimates] == [False, False, False, True, True, True]
