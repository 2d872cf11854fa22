"""The bets on a pane: their weights, and whose contribution a leading bet is."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect.alternatives import Direction, compute_set_sums
from otel_mlmon.processor.detect.bets import FIRST_ALTERNATIVE, DriftBets, NullHypothesis
from otel_mlmon.processor.detect.rare_bins import RareBinEvidence

SHARES = np.array([[0.5, 0.3, 0.19, 0.01]])


@pytest.mark.parametrize(("direction", "total"), [("both", 0.75), ("down", 1.0)])
def test_weights_leave_a_quarter_for_rare_bins(direction: Direction, total: float) -> None:
    bets = DriftBets(4, direction, RareBinEvidence(4) if direction == "both" else None)
    assert np.exp(bets.log_weights).sum() == pytest.approx(total)


@pytest.mark.parametrize(("pane", "is_rare"), [([50, 30, 19, 20], True), ([90, 3, 7, 0], False)])
def test_contributions_add_up_to_the_leaders_factor(pane: list[int], is_rare: bool) -> None:
    rare = RareBinEvidence(4)
    rare.start(0, 10_000 * SHARES[0], 0.02, None)
    bets = DriftBets(4, "both", rare)
    rows, panes = np.array([0]), np.array([pane], dtype=np.float64)
    null = NullHypothesis(SHARES, compute_set_sums(SHARES), compute_set_sums(SHARES), np.array([0.03]))
    won = np.zeros((1, bets.log_weights.size))
    result = bets.weigh_pane(rows, panes, panes.sum(-1), np.ones(1), null, np.zeros((1, 3, 4)), won)
    leader = int(result.leader[0])
    assert (leader < 0) == is_rare
    added = bets.compute_contributions(rows, panes, null, result)[0]
    if is_rare:
        assert np.flatnonzero(added).tolist() == [3]
    elif leader >= FIRST_ALTERNATIVE:
        assert added.sum() == pytest.approx(result.maximum[0] - bets.log_weights[leader])
    assert added[3 if is_rare else 0] == added.max() > 0.0
