from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import dirichlet_multinomial, multinomial

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.drift.evidence import CAP, HALF_LIVES_ITEMS, RELEASE_NATS, Direction, Evidence

Counts = NDArray[np.int64]

SHARES = np.array([0.4, 0.3, 0.2, 0.1])
FLEET_LINE = math.log(6.7e6)
"""One false alarm in 30 days over 26 streams with panes of 10 s."""


def moved(total_variation: float) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = SHARES + np.array([-total_variation, total_variation, 0.0, 0.0])
    return shares


def calibrated(
    reference: Iterable[int], *, tolerance: float = 0.02, direction: Direction = "both", seed: int = 0
) -> Evidence:
    """Evidence after 40 quiet panes of 50 items."""
    counts = np.array(list(reference))
    evidence = Evidence(counts, tolerance=tolerance, direction=direction)
    for pane in np.random.default_rng(seed).multinomial(50, counts / counts.sum(), size=40):
        evidence.update(pane, 1, FLEET_LINE)
    assert evidence.status == "ok"
    return evidence


def items_to_alarm(evidence: Evidence, shares: NDArray[np.float64], pane: int, seed: int, line: float) -> int:
    """Items until the alarm; 60,000 if there is none."""
    rng = np.random.default_rng(seed)
    for items in range(pane, 60_000, pane):
        evidence.update(rng.multinomial(pane, shares), 2, line)
        if evidence.status == "drift":
            return items
    return 60_000


def test_the_universal_component_against_scipy() -> None:
    """A first pane after calibration: the three plug-ins know nothing but r, so W_4 alone moves."""
    evidence = Evidence(np.array([4_000, 6_000]), tolerance=0.02)
    for _ in range(20):
        evidence.update(np.array([20, 30]), 1, FLEET_LINE)
    assert (evidence.status, evidence.design_effect) == ("ok", 1.0)
    pane = np.array([62, 38])
    evidence.update(pane, 2, FLEET_LINE)
    edge = (4_000.5 / 10_001.0) + 0.02 + math.sqrt(2 / 40_000)
    log_factor = dirichlet_multinomial.logpmf(pane, [0.5, 0.5], 100) - multinomial.logpmf(pane, 100, [edge, 1.0 - edge])
    # The plug-ins lie within d: each has halved its 1 by one item in a hundred.
    others = 3.0 * math.exp(-RELEASE_NATS * 100)
    assert evidence.log_e == pytest.approx(math.log((math.exp(log_factor) + others) / 4.0), rel=1e-9)
    assert evidence.contributions == pytest.approx(
        (62 * math.log(0.62 / edge), 38 * math.log(0.38 / (1 - edge))), rel=1e-9
    )


def test_a_plug_in_component_by_hand() -> None:
    """The second pane: q is the first one's counts, shrunk to r by 20, for every half-life."""
    evidence = Evidence(np.array([4_000, 6_000]), tolerance=0.02)
    for _ in range(20):
        evidence.update(np.array([20, 30]), 1, FLEET_LINE)
    r = 4_000.5 / 10_001.0
    edge = r + 0.02 + math.sqrt(2 / 40_000)
    one, two = np.array([35, 15]), np.array([30, 20])
    evidence.update(one, 2, FLEET_LINE)
    evidence.update(two, 3, FLEET_LINE)
    q = (35 + 20 * r) / 70
    bet = math.exp(30 * math.log(q / edge) + 20 * math.log((1 - q) / (1 - edge)))

    def universal(pane: Counts) -> float:
        share = max(edge, 0.0) if pane[0] / 50 > edge else pane[0] / 50
        return float(
            dirichlet_multinomial.logpmf(pane, [0.5, 0.5], 50) - multinomial.logpmf(pane, 50, [share, 1 - share])
        )

    fourth = math.exp(max(universal(one), 0.0) + universal(two))
    assert evidence.log_e == pytest.approx(math.log((3 * bet + fourth) / 4), rel=1e-9)
    assert HALF_LIVES_ITEMS == (100.0, 1_000.0, 10_000.0)


def test_calibrating_says_nothing_however_far_off_the_stream_is() -> None:
    evidence = Evidence(np.array([9_000, 1_000]), tolerance=0.02)
    for pane in range(19):
        evidence.update(np.array([0, 50]), pane, FLEET_LINE)
    assert (evidence.status, evidence.log_e, evidence.since_ns) == ("calibrating", 0.0, 18)
    for pane in range(19, 24):
        evidence.update(np.array([0, 50]), pane, FLEET_LINE)
    assert (evidence.status, evidence.since_ns) == ("drift", 19)


def test_onset_is_the_last_pane_at_one() -> None:
    evidence = calibrated([4_000, 3_000, 2_000, 1_000])
    rng = np.random.default_rng(4)
    for pane in rng.multinomial(1_000, SHARES, size=20):
        evidence.update(pane, 100, FLEET_LINE)
    assert evidence.log_e == 0.0
    for index in range(4):
        evidence.update(rng.multinomial(1_000, moved(0.3)), 101 + index, FLEET_LINE)
    assert (evidence.status, evidence.since_ns) == ("drift", 100)
    assert int(np.argmax(evidence.contributions)) == 1


def test_capped_and_resolved_when_it_has_fallen_to_one() -> None:
    evidence = calibrated([4_000, 3_000, 2_000, 1_000])
    rng = np.random.default_rng(4)
    for pane in rng.multinomial(500, moved(0.3), size=100):
        evidence.update(pane, 2, FLEET_LINE)
    assert evidence.log_e == pytest.approx(FLEET_LINE + math.log(CAP))
    statuses = []
    for pane in rng.multinomial(500, SHARES, size=40):
        evidence.update(pane, 3, FLEET_LINE)
        statuses.append((evidence.status, evidence.log_e == 0.0))
    changes = statuses.index(("ok", True))
    assert set(statuses[:changes]) == {("drift", False)}
    assert set(statuses[changes:]) <= {("ok", True), ("ok", False)}


@pytest.mark.parametrize(("direction", "up_alarms", "down_alarms"), [
    ("both", True, True), ("up", True, False), ("down", False, True),
])  # fmt: skip
def test_directions(direction: Direction, up_alarms: bool, down_alarms: bool) -> None:
    reference = [1_000, 2_000, 4_000, 2_000, 1_000]
    up, down = np.array([0.05, 0.1, 0.3, 0.3, 0.25]), np.array([0.25, 0.3, 0.3, 0.1, 0.05])
    for shares, alarms in ((up, up_alarms), (down, down_alarms)):
        evidence = calibrated(reference, direction=direction)
        assert (items_to_alarm(evidence, shares, 50, 1, FLEET_LINE) < 60_000) == alarms


def test_share_over_a_budget() -> None:
    """Latency and errors: one per cent is allowed; half a per cent is well, three are found."""
    budget = np.array([990_000_000, 10_000_000])
    quiet = Evidence(budget, tolerance=0.0, direction="up")
    rng = np.random.default_rng(9)
    for pane in rng.multinomial(200, [0.995, 0.005], size=2_000):
        quiet.update(pane, 1, FLEET_LINE)
        assert quiet.status != "drift"
    assert items_to_alarm(quiet, np.array([0.97, 0.03]), 200, 3, FLEET_LINE) <= 4_000


def test_empty_panes_change_nothing_but_time() -> None:
    evidence = calibrated([40, 30, 20, 10])
    before = evidence.to_state()
    evidence.update(np.zeros(4, dtype=np.int64), 77, FLEET_LINE)
    assert evidence.to_state() == before | {"since_ns": 77 if evidence.log_e == 0.0 else before["since_ns"]}


@pytest.mark.parametrize(
    ("reference", "panes"),
    [
        ([0, 0, 0], [[5, 0, 0]] * 300),
        ([1, 0, 0], [[50, 0, 0]] * 300),
        ([5_000], [[100]] * 300),
        ([5_000, 0], [[100, 0]] * 300),
        ([10**18, 10**18], [[10**15, 10**15]] * 40),
        ([1e30, 1e30], [[1e30, 1e30]] * 40),
        (list(range(1, 1_001)), [list(range(1, 1_001))] * 40),
    ],
    ids=["empty", "one row", "one bin", "constant", "huge", "1e30", "1000 classes"],
)
def test_odd_but_legal_streams_stay_quiet(reference: list[float], panes: list[list[float]]) -> None:
    evidence = Evidence(np.array(reference), tolerance=0.02)
    for index, pane in enumerate(panes):
        evidence.update(np.array(pane), index, FLEET_LINE)
    assert evidence.status == "ok"
    assert evidence.log_e == 0.0
    assert all(math.isfinite(part) for part in evidence.contributions)


@pytest.mark.parametrize("counts", [[1, 2], [[1, 2, 3]], []])
def test_refuses_other_bins(counts: list[int]) -> None:
    evidence = Evidence(np.array([1, 2, 3]), tolerance=0.02)
    with pytest.raises(BinMismatchError):
        evidence.update(np.array(counts), 1, FLEET_LINE)


@pytest.mark.parametrize(("counts", "tolerance"), [([1, -1], 0.1), ([1.0, math.nan], 0.1), ([1, 1], -0.1), ([1, 1], 2)])
def test_refuses_what_cannot_be(counts: list[float], tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"finite|\[0, 1\]"):
        Evidence(np.array(counts), tolerance=tolerance)


@given(
    st.integers(0, 2**32),
    st.integers(1, 12),
    st.integers(0, 60),
    st.sampled_from(["both", "up", "down"]),
)
@settings(deadline=None, max_examples=40)
def test_interrupted_is_uninterrupted(seed: int, bins: int, cut: int, direction: Direction) -> None:
    rng = np.random.default_rng(seed)
    evidence = Evidence(rng.integers(0, 500, bins), tolerance=0.02, direction=direction)
    interrupted = evidence
    for index in range(60):
        if index == cut:
            interrupted = Evidence.from_state(json.loads(json.dumps(evidence.to_state())))
        pane = rng.multinomial(int(rng.choice([0, 1, 7, 100, 3_000])), rng.dirichlet(np.ones(bins)))
        evidence.update(pane, index, FLEET_LINE)
        if interrupted is not evidence:
            interrupted.update(pane, index, FLEET_LINE)
    assert interrupted.to_state() == evidence.to_state()
    assert (interrupted.log_e, interrupted.status, interrupted.contributions, interrupted.design_effect) == (
        evidence.log_e,
        evidence.status,
        evidence.contributions,
        evidence.design_effect,
    )


@given(st.integers(0, 2**32), st.integers(2, 10))
@settings(deadline=None, max_examples=30)
def test_up_and_down_mirror_each_other(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.integers(1, 5_000, bins)
    up = Evidence(reference, tolerance=0.01, direction="up")
    down = Evidence(reference[::-1], tolerance=0.01, direction="down")
    for index, pane in enumerate(rng.multinomial(150, rng.dirichlet(np.ones(bins) * 3), size=30)):
        up.update(pane, index, FLEET_LINE)
        down.update(pane[::-1], index, FLEET_LINE)
        assert up.log_e == pytest.approx(down.log_e, rel=1e-9, abs=1e-9)
