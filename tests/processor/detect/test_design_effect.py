from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.design_effect import BLOCK_SIZES, DesignEffects
from otel_mlmon.processor.detect.state import DesignEffectColumns
from tests.support.evidence import plain
from tests.support.simulations import choose_size

SHARES = np.array([0.4, 0.3, 0.2, 0.1])


class DesignEffect:
    """One stream in arrays of its own."""

    def __init__(self, shares: NDArray[np.float64]) -> None:
        self.all = DesignEffects(shares.size)
        self.all.start(0, shares)

    def add(self, counts: NDArray[np.float64], items: float) -> None:
        self.all.add(np.array([0]), counts[None], np.array([items]))

    @property
    def divisor(self) -> float:
        return float(self.all.divisor[0])

    @property
    def estimate(self) -> float:
        return float(self.all.estimate[0])

    @property
    def is_calibrated(self) -> bool:
        return bool(self.all.is_calibrated[0])

    @property
    def level_estimates(self) -> list[float]:
        return [float(estimate) for estimate in self.all.level_estimates[0]]

    def state(self) -> DesignEffectColumns:
        return self.all.pack([0])

    @classmethod
    def from_state(cls, shares: NDArray[np.float64], state: DesignEffectColumns) -> DesignEffect:
        effect = cls(shares)
        effect.all.restore([0], shares[None], state)
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


@pytest.mark.parametrize("differences", [8, 9, 16, 64])
def test_what_is_left_out_is_given_back(differences: int) -> None:
    """Of 2,000 streams of independent items the mean estimate of a level is 1, however few its differences are."""
    rng, streams = np.random.default_rng(differences), 2_000
    effects = DesignEffects(4)
    for row in range(streams):
        effects.start(row, SHARES)
    rows = np.arange(streams)
    for _ in range(differences + 1):
        effects.add(rows, rng.multinomial(1_000, SHARES, size=streams).astype(np.float64), np.full(streams, 1_000.0))
    estimates = effects.level_estimates[:streams, 2]
    assert float(estimates.mean()) == pytest.approx(1.0, abs=0.02 + 3.0 * float(estimates.std()) / streams**0.5)


@pytest.mark.simulation
@pytest.mark.parametrize("pane", [1, 7, 100, 1_000])
def test_independent_items_have_none(pane: int) -> None:
    effect = DesignEffect(SHARES)
    items = 30_000 if pane > 1 else choose_size(5_000, 30_000)
    feed(effect, np.random.default_rng(5).choice(4, p=SHARES, size=items).astype(np.int64), pane)
    assert effect.is_calibrated
    assert 1.0 <= effect.divisor <= 1.5


@pytest.mark.simulation
@pytest.mark.parametrize(("mean_run", "pane"), [(5, 100), (10, 100), (30, 100), (5, 1_000), (10, 10), (30, 300)])
def test_runs_are_recovered(mean_run: int, pane: int) -> None:
    rng, streams = np.random.default_rng(mean_run), 20
    effects, rows = DesignEffects(4), np.arange(streams)
    labels = np.array([in_runs(rng, mean_run, 60_000) for _ in rows]).reshape(streams, -1, pane)
    for row in range(streams):
        effects.start(row, SHARES)
    for counts in np.swapaxes((labels[..., None] == np.arange(4)).sum(2), 0, 1):
        effects.add(rows, counts.astype(np.float64), np.full(streams, float(pane)))
    likeness = effects.estimate[:streams] / (2.0 * mean_run - 1.0)
    assert ((likeness >= 1.0 / 1.5) & (likeness <= 1.5)).mean() >= 0.95


def test_a_jump_of_the_shares_is_not_a_burst() -> None:
    rng = np.random.default_rng(3)
    effect = DesignEffect(SHARES)
    for counts in rng.multinomial(100, SHARES, size=100):
        effect.add(counts.astype(np.float64), 100.0)
    before = effect.divisor
    for counts in rng.multinomial(100, SHARES[::-1], size=100):
        effect.add(counts.astype(np.float64), 100.0)
    assert effect.divisor <= before + 0.5


def test_known_after_a_thousand_items_and_eight_differences() -> None:
    def panes_needed(items: float) -> int:
        effect = DesignEffect(SHARES)
        panes = 0
        while not effect.is_calibrated:
            effect.add(SHARES * items, items)
            panes += 1
        return panes

    assert [panes_needed(items) for items in (1.0, 50.0, 100.0, 200.0, 5_000.0)] == [1_000, 20, 10, 9, 9]


def test_two_bins_say_less_of_it() -> None:
    effect = DesignEffect(np.array([0.6, 0.4]))
    panes = 0
    while not effect.is_calibrated:
        effect.add(np.array([600.0, 400.0]), 1_000.0)
        panes += 1
    assert panes == 20


def test_few_differences_are_doubted() -> None:
    """Runs of 20: the eighth difference says as much, and counts are divided by nearly twice as much."""
    effect = DesignEffect(SHARES)
    rng, excess = np.random.default_rng(0), []
    for number in range(65):
        feed(effect, in_runs(rng, 20, 1_000), 1_000)
        if number in (8, 64):
            excess.append((effect.divisor - 1.0) / (effect.estimate - 1.0))
    # (e^x - 1)/x with x = 2 ln 10⁴ / .8 ν m, ν = .7² / (trace of the square, .19), m = 8 and about 64.
    expected = [math.expm1(x) / x for x in (2 * math.log(1e4) / (0.8 * 0.49 / 0.19 * count) for count in (8, 64))]
    assert excess[0] == pytest.approx(expected[0], rel=0.05)
    assert expected[1] - 0.05 <= excess[1] <= 1.3


def test_nothing_is_added_where_nothing_bursts() -> None:
    effect = DesignEffect(SHARES)
    for _ in range(30):
        effect.add(SHARES * 1_000.0, 1_000.0)
    assert (effect.estimate, effect.divisor) == (1.0, 1.0)


def test_what_straddles_a_turn_is_forgotten() -> None:
    rng, effect = np.random.default_rng(4), DesignEffect(SHARES)
    rows, yes, no = np.array([0]), np.array([True]), np.array([False])
    for counts in rng.multinomial(1_000, SHARES, size=20).astype(np.float64):
        effect.add(counts, 1_000.0)
        effect.all.forget_transitions(rows, yes, no)
    before, divisor = plain(effect.state()), effect.divisor
    for counts in rng.multinomial(1_000, SHARES[::-1], size=3).astype(np.float64):
        effect.add(counts, 1_000.0)
        effect.all.forget_transitions(rows, no, no)
    assert effect.divisor > divisor + 0.2
    effect.all.forget_transitions(rows, no, yes)
    after = plain(effect.state())
    assert after["differences"] == before["differences"]
    assert (after["difference_counts"], after["pending_counts"]) == (before["difference_counts"], [[0] * 6])
    assert not np.any(after["blocks"])
    assert not np.any(after["means"])
    assert effect.divisor == divisor


def test_a_level_that_spoke_is_not_silenced() -> None:
    effect = DesignEffect(SHARES)
    rng = np.random.default_rng(2)
    for _ in range(13):
        feed(effect, in_runs(rng, 30, 1_000), 1_000)
    assert effect.divisor > 20.0
    effect.all.forget_transitions(np.array([0]), np.array([False]), np.array([True]))
    assert effect.state().difference_counts[0, 2] == 8
    assert effect.divisor > 20.0


def test_known_stays_known() -> None:
    effect = DesignEffect(SHARES)
    feed(effect, np.random.default_rng(1).choice(4, p=SHARES, size=2_000).astype(np.int64), 50)
    assert effect.is_calibrated
    for bin_ in (0, 3) * 200:
        effect.add(np.eye(4)[bin_] * 50.0, 50.0)
        assert effect.is_calibrated
    assert effect.divisor > 20.0


def test_a_constant_stream_is_one() -> None:
    effect = DesignEffect(np.array([1.0]))
    for _ in range(40):
        effect.add(np.array([100.0]), 100.0)
    assert effect.is_calibrated
    assert effect.divisor == 1.0


def test_state_restores_it_bit_for_bit() -> None:
    rng = np.random.default_rng(8)
    labels = in_runs(rng, 4, 20_000)
    uninterrupted, cut = DesignEffect(SHARES), DesignEffect(SHARES)
    feed(uninterrupted, labels, 37)
    feed(cut, labels[: 37 * 200], 37)
    restored = DesignEffect.from_state(SHARES, cut.state())
    feed(restored, labels[37 * 200 :], 37)
    assert plain(restored.state()) == plain(uninterrupted.state())
    assert repr((restored.divisor, restored.level_estimates)) == repr(
        (uninterrupted.divisor, uninterrupted.level_estimates)
    )


def test_a_row_does_not_depend_on_those_it_is_taken_in_with() -> None:
    """Streams of other ages, bursts and panes, at times without one: φ to the last bit as if each were alone."""
    rng, streams = np.random.default_rng(6), 5
    together, alone = DesignEffects(4), [DesignEffect(SHARES) for _ in range(streams)]
    for row in range(streams):
        together.start(row, SHARES)
    for turn in range(300):
        rows = np.flatnonzero((rng.random(streams) < 0.9) & (turn >= 20 * np.arange(streams)))
        sizes = rng.integers(1, [70, 300, 300, 2_000, 20_000])[rows]
        counts = np.array([rng.multinomial(size, SHARES) * (1 + row) for size, row in zip(sizes, rows, strict=True)])
        if not rows.size:
            continue
        together.add(rows, counts.astype(np.float64), counts.sum(-1).astype(np.float64))
        for row, pane in zip(rows.tolist(), counts.astype(np.float64), strict=True):
            alone[row].add(pane, float(pane.sum()))
    assert [plain(together.pack([row])) for row in range(streams)] == [plain(one.state()) for one in alone]
    assert together.divisor[:streams].tolist() == [one.divisor for one in alone]
    assert together.estimate[:streams].tolist() == [one.estimate for one in alone]


def test_a_large_pane_speaks_for_the_largest_block_it_fills() -> None:
    effect = DesignEffect(SHARES)
    for counts in np.random.default_rng(2).multinomial(3_300, SHARES, size=200):
        effect.add(counts.astype(np.float64), 3_300.0)
    assert BLOCK_SIZES[3] <= 3_300 < BLOCK_SIZES[4]
    assert [not math.isnan(estimate) for estimate in effect.level_estimates] == [False, False, False, True, True, True]


def test_a_prior_holds_until_enough_is_known_of_the_live_items() -> None:
    """φ of the reference is used at once; a thousand items in bursts of another length refute it."""
    shares, rng = np.array([0.5, 0.3, 0.2]), np.random.default_rng(3)
    effects = DesignEffects(3)
    effects.start(0, shares, (8.0, 64))
    assert bool(effects.is_calibrated[0])
    assert (effects.estimate[0], effects.divisor[0]) == (8.0, pytest.approx(8.7, abs=0.1))
    row, estimates = np.array([0]), []
    for _ in range(60):
        counts = rng.multinomial(100, shares).astype(np.float64)[None]
        effects.add(row, counts, np.array([100.0]))
        estimates.append(float(effects.estimate[0]))
    assert estimates[14] == 8.0
    assert estimates[-1] < 1.5
    for few in (None, (8.0, 7)):
        effects.start(0, shares, few)
        assert not effects.is_calibrated[0]


def test_a_prior_that_is_not_enough_is_a_bound_until_the_live_items_tell() -> None:
    shares, rng = np.array([0.5, 0.3, 0.2]), np.random.default_rng(3)
    effects, row = DesignEffects(3), np.array([0])
    effects.start(0, shares, (8.0, 64), is_enough=False)
    states = []
    for _ in range(60):
        effects.add(row, rng.multinomial(100, shares).astype(np.float64)[None], np.array([100.0]))
        states.append((bool(effects.is_calibrated[0]), float(effects.estimate[0])))
    assert set(states[:14]) == {(False, 8.0)}
    is_calibrated, estimate = states[-1]
    assert is_calibrated
    assert estimate < 1.5


def test_a_prior_is_never_below_what_the_items_show() -> None:
    shares, rng = np.array([0.5, 0.5]), np.random.default_rng(4)
    effects, row = DesignEffects(2), np.array([0])
    effects.start(0, shares, (1.0, 64))
    for _ in range(30):
        effects.add(row, (rng.multinomial(5, shares) * 20).astype(np.float64)[None], np.array([100.0]))
    assert effects.estimate[0] > 10.0


def test_a_prior_may_be_raised_before_the_first_item_only() -> None:
    shares = np.array([0.5, 0.5])
    effects = DesignEffects(2)
    effects.start(0, shares, (2.0, 64))
    effects.raise_prior(0, 6.0)
    effects.raise_prior(0, 3.0)
    assert (effects.estimate[0], effects.divisor[0]) == (6.0, 6.0)
    state = effects.pack([0])
    effects.start(0, shares)
    effects.restore([0], shares[None], state)
    assert (effects.estimate[0], bool(effects.is_calibrated[0])) == (6.0, True)
    effects.add(np.array([0]), np.array([[50.0, 50.0]]), np.array([100.0]))
    effects.raise_prior(0, 60.0)
    assert effects.estimate[0] == 6.0
