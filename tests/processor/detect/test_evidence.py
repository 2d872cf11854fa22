from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import betaln, xlogy
from scipy.stats import dirichlet_multinomial, multinomial

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.detect.alternatives import HALF_LIVES_ITEMS, TILTS, Direction, build_alternatives
from otel_mlmon.processor.detect.bets import SlotHypothesis
from otel_mlmon.processor.detect.evidence import CAP, EvidenceBank
from otel_mlmon.types import Counts
from tests.support.evidence import Evidence, plain
from tests.support.simulations import choose_size

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


def best_move(up: int, down: int, most: float) -> float:
    """Log of the largest weighted bet on the first of two bins, of which at most `most` is in it."""
    z = -np.log(most * np.exp(TILTS) + 1.0 - most)
    return float((up * TILTS + (up + down) * z).max()) + math.log(
        0.75 / (2 * build_alternatives(2, "both").alternative_count)
    )


def universal(pane: Counts, edge: float) -> float:
    share = max(edge, pane[0] / pane.sum()) if pane[0] / pane.sum() <= edge else edge
    nearest = multinomial.logpmf(pane, pane.sum(), [share, 1 - share])
    return float(dirichlet_multinomial.logpmf(pane, [0.5, 0.5], pane.sum()) - nearest)


def calibrated_pair() -> Evidence:
    """Of {.4 .6}, with a design effect of 1 and nothing learned but r."""
    evidence = Evidence(np.array([4_000, 6_000]), tolerance=0.02)
    for _ in range(20):
        evidence.update(np.array([20, 30]), 1, FLEET_LINE)
    assert (evidence.status, evidence.design_effect, evidence.log_e) == ("ok", 1.0, 0.0)
    return evidence


SHARE = 4_000.5 / 10_001.0
EDGE = SHARE + 0.02 + math.sqrt(2 * SHARE * (1 - SHARE) / 10_000)


def test_the_universal_component_against_scipy() -> None:
    """Two hundred of one bin: no move of the dictionary bets on that much, and the plug-ins know nothing yet."""
    evidence = calibrated_pair()
    pane = np.array([200, 0])
    evidence.update(pane, 2, FLEET_LINE)
    log_factor = dirichlet_multinomial.logpmf(pane, [0.5, 0.5], 200) - 200 * math.log(EDGE)
    expected = log_factor - math.log(8 / 0.75)
    assert expected > best_move(200, 0, EDGE)
    assert evidence.log_e == pytest.approx(min(expected, FLEET_LINE + math.log(CAP)), rel=1e-12)
    evidence = calibrated_pair()
    pane = np.array([31, 2])
    evidence.update(pane, 2, FLEET_LINE)
    assert universal(pane, EDGE) - math.log(8 / 0.75) > best_move(31, 2, EDGE)
    assert evidence.log_e == pytest.approx(universal(pane, EDGE) - math.log(8 / 0.75), rel=1e-9)
    assert evidence.contributions == pytest.approx(
        (31 * math.log(31 / 33 / EDGE), 2 * math.log(2 / 33 / (1 - EDGE))), rel=1e-9
    )


def test_a_move_by_hand_is_carried_from_pane_to_pane() -> None:
    evidence = calibrated_pair()
    evidence.update(np.array([62, 38]), 2, FLEET_LINE)
    assert evidence.log_e == pytest.approx(max(0.0, best_move(62, 38, EDGE)), rel=1e-9)
    evidence.update(np.array([70, 30]), 3, FLEET_LINE)
    theta = TILTS[3]
    z = -math.log(EDGE * math.exp(theta) + 1.0 - EDGE)
    assert best_move(132, 68, EDGE) == pytest.approx(132 * theta + 200 * z - math.log(16 / 0.75), rel=1e-12)
    assert evidence.log_e == pytest.approx(best_move(132, 68, EDGE), rel=1e-9)
    assert sum(evidence.contributions) == pytest.approx(132 * theta + 200 * z, rel=1e-9)


def test_two_bins_against_a_scalar_oracle() -> None:
    """All fourteen components of a stream of two bins, one number at a time, in panes of any size."""
    rng = np.random.default_rng(6)
    evidence = calibrated_pair()
    r = 4_000.5 / 10_001.0
    # Nothing was remembered before φ was known.
    recent = [[0.0, 0.0] for _ in HALF_LIVES_ITEMS]
    tilts = [float(theta) for theta in TILTS]
    keys: list[str | int | tuple[int, float]] = ["u", 0, 1, 2, *((side, theta) for side in (0, 1) for theta in tilts)]
    log_w = dict.fromkeys(keys, 0.0)
    led = set()
    for size in (1,) * 150 + (30, 0, 200, 7) * 5:
        pane = rng.multinomial(size, [0.52, 0.48])
        phi = evidence.divisor
        evidence.update(pane, 2, 1_000.0)
        if not size:
            continue
        c, n = pane / phi, size / phi
        d = 0.02 + math.sqrt(2 * r * (1 - r) * phi / 10_000)
        gains = dict.fromkeys(keys, universal_of(c, r, d))
        for index, (x, y) in enumerate(recent):
            q = (x + 20 * r) / (x + y + 20)
            gains[index] = log_ratio(c, q, r, d) if abs(q - r) > d else -math.log(2) / 100 * n
            decay = 0.5 ** (n / HALF_LIVES_ITEMS[index])
            recent[index] = [x * decay + c[0], y * decay + c[1]]
        for side in (0, 1):
            most = (r, 1 - r)[side] + d
            for theta in tilts:
                z = -math.log(most * math.exp(theta) + 1 - most)
                gains[side, theta] = c[side] * theta + n * z
        weighted = dict.fromkeys(keys, 0.0)
        for key, gain in gains.items():
            total = log_w[key] + gain
            weighted[key] = total - math.log((16 if isinstance(key, tuple) else 8) / 0.75)
            log_w[key] = max(0.0, total)
        assert evidence.log_e == pytest.approx(max(0.0, *weighted.values()), rel=1e-9, abs=1e-9)
        led.add(type(max(weighted, key=weighted.__getitem__)))
    assert evidence.log_e > 5.0
    assert led >= {tuple, int}


def log_ratio(c: NDArray[np.float64], q: float, r: float, d: float) -> float:
    edge = r + d if q > r else r - d
    return float(c[0] * math.log(q / edge) + c[1] * math.log((1 - q) / (1 - edge)))


def universal_of(c: NDArray[np.float64], r: float, d: float) -> float:
    n, share = c.sum(), c[0] / c.sum()
    nearest = min(max(share, r - d), r + d)
    marginal = betaln(c[0] + 0.5, c[1] + 0.5) - betaln(0.5, 0.5)
    return float(marginal - xlogy(c[0], nearest) - xlogy(n - c[0], 1 - nearest))


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
        assert (items_to_alarm(evidence, shares, 100, 1, FLEET_LINE) < 60_000) == alarms


@pytest.mark.simulation
def test_share_over_a_budget() -> None:
    """Latency and errors: one per cent is allowed; half a per cent is well, three are found."""
    budget = np.array([990_000_000, 10_000_000])
    quiet = Evidence(budget, tolerance=0.0, direction="up")
    rng = np.random.default_rng(9)
    for pane in rng.multinomial(200, [0.995, 0.005], size=choose_size(500, 2_000)):
        quiet.update(pane, 1, FLEET_LINE)
        assert quiet.status != "drift"
    assert items_to_alarm(quiet, np.array([0.97, 0.03]), 200, 3, FLEET_LINE) <= 4_000


def test_empty_panes_change_nothing_but_time() -> None:
    evidence = calibrated([40, 30, 20, 10])
    before = plain(evidence.state())
    evidence.update(np.zeros(4, dtype=np.int64), 77, FLEET_LINE)
    assert evidence.log_e == 0.0
    traffic = before["traffic"] | {"last_ns": [77]}
    assert plain(evidence.state()) == before | {"since_ns": [77], "last_ns": [77], "traffic": traffic}


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
            interrupted = Evidence.from_state(evidence.state(), direction)
        pane = rng.multinomial(int(rng.choice([0, 1, 7, 100, 3_000])), rng.dirichlet(np.ones(bins)))
        evidence.update(pane, index, FLEET_LINE)
        if interrupted is not evidence:
            interrupted.update(pane, index, FLEET_LINE)
    assert plain(interrupted.state()) == plain(evidence.state())
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


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from(["both", "up", "down"]))
@settings(deadline=None, max_examples=25)
def test_a_stream_does_not_depend_on_its_company(seed: int, bins: int, direction: Direction) -> None:
    """To the last bit, whoever is updated beside it, and wherever its row is."""
    rng = np.random.default_rng(seed)
    references = [rng.integers(0, 2_000, bins) for _ in range(7)]
    shares = rng.dirichlet(np.ones(bins), size=7)
    together = EvidenceBank(bins, direction)
    rows = np.array([together.add(reference, 0.02) for reference in references])
    alone = [Evidence(reference, tolerance=0.02, direction=direction) for reference in references]
    for index in range(40):
        sizes = rng.choice([0, 1, 50, 400, 3_000], size=7)
        panes = np.array([rng.multinomial(size, share) for size, share in zip(sizes, shares, strict=True)])
        company = np.flatnonzero(rng.random(7) < 0.7)
        order = rng.permutation(company)
        together.update(rows[order], panes[order], np.full(order.size, index), FLEET_LINE)
        for place in company:
            alone[place].update(panes[place], index, FLEET_LINE)
    assert [plain(together.pack([row])) for row in rows.tolist()] == [plain(evidence.state()) for evidence in alone]


def test_many_streams_are_taken_in_by_parts() -> None:
    """More streams than fit in one part: each as if alone."""
    rng = np.random.default_rng(1)
    bank, alone = EvidenceBank(10), Evidence(np.full(10, 500), tolerance=0.02)
    rows = np.array([bank.add(np.full(10, 500), 0.02) for _ in range(500)])
    for index in range(25):
        pane = rng.multinomial(200, rng.dirichlet(np.full(10, 20.0)))
        bank.update(rows, np.tile(pane, (500, 1)), np.full(500, index), FLEET_LINE)
        alone.update(pane, index, FLEET_LINE)
    assert [plain(bank.pack([row])) == plain(alone.state()) for row in (0, 199, 200, 499)] == [True] * 4


def test_a_row_is_given_on_clean() -> None:
    bank = EvidenceBank(2)
    first = bank.add(np.array([50, 50]), 0.02)
    for index in range(40):
        bank.update(np.array([first]), np.array([[90, 10]]), np.array([index]), FLEET_LINE)
    bank.remove(first)
    again = bank.add(np.array([5_000, 5_000]), 0.1)
    assert again == first
    fresh = EvidenceBank(2)
    after, clean = bank.pack([again]), fresh.pack([fresh.add(np.array([5_000, 5_000]), 0.1)])
    assert plain(after) == plain(clean)


def test_the_end_of_a_large_drift_shows_soon_after_it_lasted_long() -> None:
    """Small bets win everything too beside a large drift, and would be the last to lose it again."""
    evidence = calibrated([4_000, 3_000, 2_000, 1_000])
    rng = np.random.default_rng(5)
    for pane in rng.multinomial(100, moved(0.35), size=300):
        evidence.update(pane, 2, FLEET_LINE)
    panes = 0
    while evidence.status == "drift":
        evidence.update(rng.multinomial(100, SHARES), 3, FLEET_LINE)
        panes += 1
    assert panes <= 10


def evidence_at_a_time_of_day(*, forgiven: float = 0.0, variance: float = 1e-6, effect: float = 1.0) -> float:
    """Evidence of twenty drifted panes against a time of the day whose shares are those of the reference."""
    bank = EvidenceBank(3)
    row = bank.add(np.array([4_000, 3_000, 3_000]), 0.02)
    shares, sums = bank.column("shares")[row], bank.column("set_shares")[row]
    null = SlotHypothesis(shares, sums, sums, 0.0, variance, 10_000.0, effect, forgiven, is_known=True)
    bank.slots.write([row], [null])
    for end in range(60):
        pane = np.array([[40, 30, 30]]) if end < 40 else np.array([[22, 48, 30]])
        bank.update(np.array([row]), pane, np.array([end]), 1e6)
    return float(bank.log_e[row])


def test_what_is_forgiven_or_not_known_at_a_time_of_day_lessens_the_evidence() -> None:
    alone = evidence_at_a_time_of_day()
    assert alone > 20.0
    assert alone > evidence_at_a_time_of_day(forgiven=0.02) > evidence_at_a_time_of_day(forgiven=0.05) > 0.0
    assert alone > evidence_at_a_time_of_day(variance=4e-4) > evidence_at_a_time_of_day(variance=2.5e-3) > 0.0
    # Of the pane's own φ and that of the time of day the larger counts.
    unsure = evidence_at_a_time_of_day(variance=4e-4)
    assert (
        evidence_at_a_time_of_day(variance=4e-4, effect=0.5)
        == unsure
        > evidence_at_a_time_of_day(variance=4e-4, effect=4.0)
    )
