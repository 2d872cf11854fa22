"""The bets on a pane: their weights, and whose contribution a leading bet is."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect.alternatives import Direction, compute_bin_set_sums
from otel_mlmon.processor.detect.bets import FIRST_ALTERNATIVE, DriftBets, NullHypothesis, SlotHypothesis, SlotTable
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
    null = NullHypothesis(SHARES, compute_bin_set_sums(SHARES), compute_bin_set_sums(SHARES), np.array([0.03]))
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


def test_a_table_of_slots_has_what_each_stream_has_now() -> None:
    table, sums = SlotTable(2), np.arange(8.0)
    bank = {
        "shares": np.full((4, 2), 0.5), "set_shares": np.full((4, 8), 0.5),
        "variance": np.arange(4.0), "total": np.array([10.0, 20.0, 30.0, 40.0]),
    }  # fmt: skip

    def slot(share: float) -> SlotHypothesis:
        shares = np.array([share, 1.0 - share])
        return SlotHypothesis(shares, sums + share, sums, share / 2.0, share, 100.0 * share, 2.0, 0.1, is_known=False)

    first, second = slot(0.2), slot(0.3)
    table.write([0, 1, 2, 3], [None] * 4)
    assert table.stack(np.array([1, 3]), bank.__getitem__) is None
    table.write([3, 1], [first, second])
    both = table.stack(np.array([3, 1]), bank.__getitem__)
    # A row that another stream took over, one that went on to the next slot, and two that lost and got a cycle.
    table.write([3, 0], [first, second])
    table.write([1, 2, 3, 0], [first, slot(0.4), second, None])
    later = table.stack(np.array([0, 1, 2, 3]), bank.__getitem__)
    assert both is not None
    assert later is not None
    assert [column.tolist() for column in both] == [
        [[0.2, 0.8], [0.3, 0.7]], [(sums + 0.2).tolist(), (sums + 0.3).tolist()], [sums.tolist()] * 2, [0.1, 0.15],
        [0.2, 0.3], [20.0, 30.0], [2.0, 2.0], [0.1, 0.1], [False, False], [False, False], [True, True],
    ]  # fmt: skip
    assert later.shares.tolist() == [[0.5, 0.5], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]
    assert later.variance.tolist() == [0.0, 0.2, 0.4, 0.3]
    assert later.size.tolist() == [10.0, 20.0, 40.0, 30.0]
    assert later.effect.tolist() == [1.0, 2.0, 2.0, 2.0]
    assert later.is_known.tolist() == [True, False, False, False]
    assert later.has_cycle.tolist() == [False, True, True, True]
