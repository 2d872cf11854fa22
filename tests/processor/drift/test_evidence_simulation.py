"""Seeded simulations of the promises of `evidence.py`: how often it is wrong, and how soon it is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.drift.evidence import Evidence

pytestmark = pytest.mark.simulation

SHARES = np.array([0.4, 0.3, 0.2, 0.1])
ARL_LINE = math.log(1e4)
FLEET_LINE = math.log(6.7e6)
"""One false alarm in 30 days over 26 streams with panes of 10 s."""


def moved(total_variation: float) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = SHARES + np.array([-total_variation, total_variation, 0.0, 0.0])
    return shares


def quiet(rng: np.random.Generator, *, pane: int, panes: int, line: float) -> Evidence:
    """Evidence after `panes` panes without drift, against a reference of 10,000."""
    evidence = Evidence(rng.multinomial(10_000, SHARES), tolerance=0.02)
    for counts in rng.multinomial(pane, SHARES, size=panes):
        evidence.update(counts, 1, line)
    assert evidence.status == "ok"
    return evidence


def items_to_alarm(evidence: Evidence, rng: np.random.Generator, *, drift: float, pane: int, line: float) -> int:
    items = 0
    while evidence.status == "ok":
        evidence.update(rng.multinomial(pane, moved(drift)), 2, line)
        items += pane
        assert items < 60_000, "missed"
    return items


@pytest.mark.parametrize("pane", [500, 1_000, 10_000])
def test_no_false_alarm(pane: int) -> None:
    """3,000 windows at an ARL of 10⁴ windows, 30 references."""
    rng = np.random.default_rng(pane)
    for _ in range(30):
        evidence = Evidence(rng.multinomial(10_000, SHARES), tolerance=0.02)
        for counts in rng.multinomial(pane, SHARES, size=100):
            evidence.update(counts, 1, ARL_LINE)
            assert evidence.status != "drift"


def test_truth_at_the_edge_of_the_tolerance() -> None:
    """2,000 windows whose truth is exactly as far off as is forgiven, the reference known exactly."""
    rng = np.random.default_rng(7)
    reference = (SHARES * 10**12).astype(np.int64)
    alarms = 0
    for _ in range(20):
        evidence = Evidence(reference, tolerance=0.02)
        for counts in rng.multinomial(1_000, moved(0.02), size=100):
            evidence.update(counts, 1, ARL_LINE)
            alarms += evidence.status == "drift"
    assert alarms == 0


@pytest.mark.parametrize("overdispersed", [True, False], ids=["Dirichlet 500", "daily cycle .03"])
def test_no_false_alarm_where_the_shares_move(*, overdispersed: bool) -> None:
    rng = np.random.default_rng(11)
    for _ in range(10):
        evidence = Evidence(rng.multinomial(10_000, SHARES), tolerance=0.02)
        for index in range(100):
            drift = 0.03 * math.sin(2.0 * math.pi * index / 24.0)
            shares = rng.dirichlet(500.0 * SHARES) if overdispersed else moved(drift)
            evidence.update(rng.multinomial(1_000, shares), 1, ARL_LINE)
            assert evidence.status != "drift"


def test_ten_points_in_three_windows_of_a_thousand() -> None:
    rng = np.random.default_rng(1)
    windows = []
    for _ in range(40):
        evidence = quiet(rng, pane=1_000, panes=12, line=ARL_LINE)
        windows.append(items_to_alarm(evidence, rng, drift=0.10, pane=1_000, line=ARL_LINE) / 1_000)
    assert float(np.mean(windows)) <= 3.0


@pytest.mark.parametrize(
    ("pane", "runs", "line", "within"),
    [
        (1, 6, FLEET_LINE, 2_500),
        (10, 20, FLEET_LINE, 2_500),
        (100, 30, FLEET_LINE, 2_500),
        (500, 40, ARL_LINE, 2_500),
        (1_000, 40, ARL_LINE, 2_500),
        # An alarm can only come at the end of a pane, and the fleet's line takes three of them and more.
        (500, 40, FLEET_LINE, 3_000),
        (1_000, 40, FLEET_LINE, 3_500),
    ],
)
def test_ten_points_are_found_in_items_at_any_pane(pane: int, runs: int, line: float, within: int) -> None:
    """2,500 items on average at the ARL of 10⁴ panes; at the fleet's line too, up to panes of 100."""
    rng = np.random.default_rng(pane)
    items = []
    for _ in range(runs):
        evidence = quiet(rng, pane=max(50, pane), panes=max(30, 6_000 // max(50, pane)), line=line)
        items.append(items_to_alarm(evidence, rng, drift=0.10, pane=pane, line=line))
    assert float(np.mean(items)) <= within


@pytest.mark.parametrize("mean_run", [5, 10, 30])
@pytest.mark.parametrize("pane", [50, 1_000])
def test_sticky_sessions_are_no_drift(mean_run: int, pane: int) -> None:
    """Items in runs of one label, as sessions and video frames make them; the reference is as bursty."""
    rng = np.random.default_rng(mean_run)
    for _ in range(4):
        lengths = rng.geometric(1.0 / mean_run, 200_000 // mean_run)
        labels = np.repeat(rng.choice(4, p=SHARES, size=lengths.size), lengths)
        learned = 4_000 * mean_run
        evidence = Evidence(np.bincount(labels[:learned], minlength=4), tolerance=0.02)
        live = labels[learned : learned + 60 * 1_000]
        for start in range(0, live.size, pane):
            evidence.update(np.bincount(live[start : start + pane], minlength=4), 1, FLEET_LINE)
            assert evidence.status != "drift"
        truth = 2.0 * mean_run - 1.0
        assert truth / 2.0 < evidence.design_effect < truth * 2.0


@pytest.mark.parametrize(("drift", "pane", "within"), [(0.35, 50, 2_000), (0.2, 100, 6_000), (0.1, 100, 12_000)])
def test_recovers(drift: float, pane: int, within: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        evidence = quiet(rng, pane=pane, panes=6_000 // pane, line=FLEET_LINE)
        for counts in rng.multinomial(pane, moved(drift), size=10_000 // pane):
            evidence.update(counts, 2, FLEET_LINE)
        assert evidence.status == "drift"
        items = 0
        while evidence.status == "drift":
            evidence.update(rng.multinomial(pane, SHARES), 3, FLEET_LINE)
            items += pane
            assert items <= within


def test_confidence_collapse_is_found_and_a_rise_is_not() -> None:
    """Confidence ~ Beta(9, 1) in ten bins, panes of 50; down by .10 on average, or up."""
    rng = np.random.default_rng(2)

    def pane(a: float, items: int) -> NDArray[np.int64]:
        return np.bincount((rng.beta(a, 1.0, items) * 10).astype(np.int64).clip(0, 9), minlength=10)

    found = []
    for _ in range(10):
        evidence = Evidence(pane(9.0, 10_000), tolerance=0.02, direction="down")
        for _ in range(40):
            evidence.update(pane(9.0, 50), 1, FLEET_LINE)
        for _ in range(40):
            evidence.update(pane(30.0, 50), 1, FLEET_LINE)
            assert evidence.status == "ok"
        items = 0
        while evidence.status == "ok":
            evidence.update(pane(4.0, 50), 2, FLEET_LINE)
            items += 50
            assert items < 2_000, "missed"
        found.append(items)
    assert float(np.mean(found)) <= 600.0
