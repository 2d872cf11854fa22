"""Seeded simulations of the promises of `evidence.py`: how often it is wrong, and how soon it is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.drift.streams import Sticky
from otel_mlmon.processor.detect.evidence import CALIBRATING, DRIFT, EvidenceBank
from otel_mlmon.types import Floats
from tests.support.simulations import choose_size

pytestmark = pytest.mark.simulation


SHARES = np.array([0.4, 0.3, 0.2, 0.1])
ARL_LINE = math.log(1e4)
FLEET_LINE = math.log(6.7e6)
"""One false alarm in 30 days over 26 streams with panes of 10 s."""


def moved(total_variation: float) -> Floats:
    shares: Floats = SHARES + np.array([-total_variation, total_variation, 0.0, 0.0])
    return shares


class Runs:
    """As many streams as `runs`, each with a reference of its own."""

    def __init__(self, seed: int, runs: int, *, line: float, reference: int = 10_000) -> None:
        self.rng = np.random.default_rng(seed)
        self.line = line
        self.bank = EvidenceBank(4)
        references = self.rng.multinomial(reference, SHARES, size=runs)
        self.rows = np.array([self.bank.add(counts, 0.02) for counts in references])

    def take(self, rows: NDArray[np.intp], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """One pane of each of `rows`; which are in drift then."""
        self.bank.update(rows, counts, np.ones(rows.size, dtype=np.int64), self.line)
        is_drift: NDArray[np.bool_] = self.bank.status[rows] == DRIFT
        return is_drift

    def alarms(self, pane: int, shares: Floats, panes: int) -> int:
        """How many streams alarm in so many panes."""
        ever = np.zeros(self.rows.size, dtype=bool)
        for _ in range(panes):
            ever |= self.take(self.rows, self.rng.multinomial(pane, shares, size=self.rows.size))
        return int(ever.sum())

    def items_to_alarm(self, pane: int, shares: Floats, within: int) -> Floats:
        """Of each stream, infinite where there was none within so many items."""
        items = np.full(self.rows.size, np.inf)
        waiting = np.arange(self.rows.size)
        for done in range(pane, within + 1, pane):
            is_drift = self.take(self.rows[waiting], self.rng.multinomial(pane, shares, size=waiting.size))
            items[waiting[is_drift]] = done
            waiting = waiting[~is_drift]
            if not waiting.size:
                break
        return items


@pytest.mark.parametrize("pane", [500, 1_000, 10_000])
def test_no_false_alarm_in_100_000_windows(pane: int) -> None:
    """1,000 references of 100 windows at an ARL of 10⁴: 0, so at most 3.7e-5 a window with 97.5 % confidence.

    In the small form 250 references, and at most 1.5e-4.
    """
    assert Runs(pane, choose_size(250, 1_000), line=ARL_LINE).alarms(pane, SHARES, 100) == 0


def test_truth_at_the_edge_of_the_tolerance() -> None:
    """20,000 windows whose truth is exactly as far off as is forgiven, the reference known exactly."""
    runs = Runs(7, 200, line=ARL_LINE, reference=10**12)
    # One alarm in 10⁴ windows is what is accepted: two on average, five with 98 %.
    assert runs.alarms(1_000, moved(0.02), 100) <= 5


@pytest.mark.parametrize("kind", ["Dirichlet 500", "daily cycle .03"])
def test_no_false_alarm_where_the_shares_move(kind: str) -> None:
    runs = Runs(11, 300, line=ARL_LINE)
    for index in range(100):
        shares = moved(0.03 * math.sin(2.0 * math.pi * index / 24.0))
        if kind == "Dirichlet 500":
            shares = runs.rng.dirichlet(500.0 * SHARES, size=runs.rows.size)
        assert not runs.take(runs.rows, runs.rng.multinomial(1_000, shares, size=runs.rows.size)).any()


def test_ten_points_in_three_windows_of_a_thousand() -> None:
    runs = Runs(1, 300, line=ARL_LINE)
    assert runs.alarms(1_000, SHARES, 12) == 0
    windows = runs.items_to_alarm(1_000, moved(0.10), 50_000) / 1_000
    assert windows.max() < math.inf
    assert windows.mean() <= 3.0


@pytest.mark.parametrize(
    ("pane", "streams"),
    choose_size([(10, 60), (100, 100), (1_000, 300)], [(1, 40), (10, 60), (100, 200), (500, 300), (1_000, 300)]),
)
def test_ten_points_in_2500_items_at_any_pane(pane: int, streams: int) -> None:
    """What is over this line was over any lower one no later."""
    runs = Runs(pane, streams, line=FLEET_LINE)
    before = max(50, pane)
    assert runs.alarms(before, SHARES, max(30, 6_000 // before)) == 0
    items = runs.items_to_alarm(pane, moved(0.10), 10_000)
    assert items.max() < math.inf
    assert items.mean() <= 2_500


def test_five_points_are_found_where_the_reference_knows_enough() -> None:
    """With 100,000 in the reference none is missed; with 10,000 an unlucky one alone hides half of the move."""
    for reference, missed in ((100_000, 0.0), (10_000, 0.05)):
        runs = Runs(5, 300, line=ARL_LINE, reference=reference)
        assert runs.alarms(500, SHARES, 20) == 0
        items = runs.items_to_alarm(500, moved(0.05), 60_000)
        assert np.isinf(items).mean() <= missed
        assert np.median(items) <= 20_000


@pytest.mark.parametrize("pane", [50, 500, 1_000])
def test_ten_points_in_2500_items_as_soon_as_it_is_calibrated(pane: int) -> None:
    runs = Runs(pane + 1, 300, line=FLEET_LINE)
    while (runs.bank.status[runs.rows] == CALIBRATING).any():
        assert runs.alarms(pane, SHARES, 1) == 0
    items = runs.items_to_alarm(pane, moved(0.10), 20_000)
    assert items.max() < math.inf
    assert items.mean() <= 2_500


class InRuns:
    """Streams whose items come in runs of one class; each with a reference as bursty, of 5,000 independent items."""

    def __init__(self, seed: int, streams: int, mean_run: int, *, line: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.line = line
        self.traffic = Sticky(mean_run, 0)
        self.bank = EvidenceBank(4)
        references = self.traffic.of(self.rng, streams, 10_000 * mean_run)
        self.rows = np.array([self.bank.add(counts, 0.02) for counts in references])

    def take(self, pane: int, shares: Floats = SHARES) -> NDArray[np.bool_]:
        """One pane of each; which are in drift then."""
        counts = self.traffic.of(self.rng, self.rows.size, pane, shares)
        self.bank.update(self.rows, counts, np.ones(self.rows.size, dtype=np.int64), self.line)
        is_drift: NDArray[np.bool_] = self.bank.status[self.rows] == DRIFT
        return is_drift

    @property
    def likeness(self) -> Floats:
        """The design effect shown, over the true one."""
        shown: Floats = self.bank.effects.estimate[self.rows] / self.traffic.design_effect
        return shown


@pytest.mark.parametrize("mean_run", [5, 20, 50])
def test_sticky_sessions_are_no_drift(mean_run: int) -> None:
    """300 runs of 60 windows at an ARL of 10⁴; W passes a hundredth of that in one run of a hundred at most.

    So few windows, since what false alarms there are come early, while φ is hardly known.
    """
    runs = InRuns(mean_run, streams := choose_size(100, 300), mean_run, line=ARL_LINE)
    most = np.zeros(streams)
    for _ in range(60):
        assert not runs.take(1_000).any()
        most = np.maximum(most, runs.bank.log_e[runs.rows])
    assert (most >= math.log(100.0)).sum() <= 3
    assert ((runs.likeness >= 1.0 / 1.5) & (runs.likeness <= 1.5)).mean() >= 0.96


@pytest.mark.parametrize("mean_run", choose_size([30], [10, 30]))
def test_sticky_sessions_are_no_drift_in_small_panes(mean_run: int) -> None:
    runs = InRuns(mean_run, 30, mean_run, line=FLEET_LINE)
    for _ in range(600):
        assert not runs.take(50).any()
    assert ((runs.likeness >= 1.0 / 1.5) & (runs.likeness <= 1.5)).mean() >= 0.9


@pytest.mark.parametrize(("mean_run", "drift", "within"), [(1, 0.1, 2_500), (5, 0.2, 500)])
def test_drift_that_returns_is_found_as_soon_each_time(mean_run: int, drift: float, within: float) -> None:
    """Four episodes; a quarter later than the first is allowed, each mean being known to a tenth."""
    runs = InRuns(1, choose_size(40, 80), mean_run, line=FLEET_LINE)
    effect, pane = runs.traffic.design_effect, 500 * mean_run
    for _ in range(int(15_000 * effect) // pane):
        assert not runs.take(pane).any()
    means: list[float] = []
    for _ in range(4):
        assert not runs.take(pane).any()
        is_drift = np.array([runs.take(pane, moved(drift)) for _ in range(int(5_000 * effect) // pane)])
        assert is_drift.any(0).all()
        means.append(float((is_drift.argmax(0) + 1).mean()) * pane / effect)
        for _ in range(int(6_000 * effect) // pane):
            runs.take(pane)
    assert means[0] <= within
    assert max(means) <= 1.25 * means[0]


@pytest.mark.parametrize(("drift", "pane", "within"), [(0.35, 50, 2_000), (0.2, 100, 6_000), (0.1, 100, 12_000)])
def test_recovers(drift: float, pane: int, within: int) -> None:
    runs = Runs(3, 50, line=FLEET_LINE)
    assert runs.alarms(pane, SHARES, 6_000 // pane) == 0
    assert runs.alarms(pane, moved(drift), 10_000 // pane) == 50
    drifting = runs.rows
    for _ in range(within // pane):
        drifting = drifting[runs.take(drifting, runs.rng.multinomial(pane, SHARES, size=drifting.size))]
        if not drifting.size:
            break
    assert drifting.size == 0


def test_confidence_collapse_is_found_and_a_rise_is_not() -> None:
    """Confidence ~ Beta(9, 1) in ten bins, panes of 50; down by .10 on average, or up."""
    rng, streams = np.random.default_rng(2), 30

    def panes(a: float, items: int) -> NDArray[np.int64]:
        bins = (rng.beta(a, 1.0, (streams, items)) * 10).astype(np.int64).clip(0, 9)
        counts: NDArray[np.int64] = (bins[..., None] == np.arange(10)).sum(1)
        return counts

    bank = EvidenceBank(10, "down")
    rows = np.array([bank.add(counts, 0.02) for counts in panes(9.0, 10_000)])
    ends = np.ones(streams, dtype=np.int64)
    for a in (9.0,) * 40 + (30.0,) * 40:
        bank.update(rows, panes(a, 50), ends, FLEET_LINE)
        assert not (bank.status[rows] == DRIFT).any()
    items = np.zeros(streams)
    for _ in range(40):
        items += 50 * (bank.status[rows] != DRIFT)
        bank.update(rows, panes(4.0, 50), ends, FLEET_LINE)
    assert (bank.status[rows] == DRIFT).all()
    assert items.mean() <= 600.0
