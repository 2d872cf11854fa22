from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.onset import SinceOnset, shares
from tests.support.scores import SECOND_NS, judged

NAN = float("nan")


def test_an_hour_of_calm_does_not_hide_ten_seconds_of_drift() -> None:
    since = SinceOnset()
    for _ in range(3):
        _, (window, score) = judged(
            "input.x", "drift", is_ordered=True, pane=(10, 90), rolling=(35_000, 36_000), means=(0.3, 0.31, 0.8)
        )
        since.add(window, score)
    counted = since.counted(window)
    assert counted.counts == (30, 270)
    assert counted.mean == pytest.approx(0.8)


def test_the_rolling_window_is_what_counts_when_it_is_the_shorter() -> None:
    since = SinceOnset()
    for _ in range(3):
        _, (window, score) = judged("input.x", "drift", pane=(10, 90), rolling=(20, 180), means=(0.3, 0.7, 0.8))
        since.add(window, score)
    assert (since.counted(window).counts, since.counted(window).mean) == ((20, 180), 0.7)


def test_a_new_onset_begins_anew_and_no_evidence_forgets() -> None:
    since = SinceOnset()
    for onset_ns in (SECOND_NS, SECOND_NS, 9 * SECOND_NS):
        _, (window, score) = judged("input.x", "ok", pane=(1, 2), rolling=(500, 500), since_ns=onset_ns)
        since.add(window, score)
    assert since.counted(window).counts == (1, 2)
    _, (window, score) = judged("input.x", "ok", pane=(1, 2), rolling=(500, 500))
    since.add(window, score)
    assert since.counted(window).counts == (500, 500)
    assert since.to_state() == {}


def test_bins_that_change_begin_anew() -> None:
    since = SinceOnset()
    _, (window, score) = judged("input.x", "drift", pane=(1, 2), rolling=(50, 50))
    since.add(window, score)
    _, (window, score) = judged(
        "input.x", "drift", names=("a", "b", "c"), reference=(1, 1, 1), pane=(1, 2, 3), rolling=(50, 50, 50)
    )
    since.add(window, score)
    assert since.counted(window).counts == (1, 2, 3)


def test_missing_values_weigh_nothing_in_the_mean() -> None:
    since = SinceOnset()
    for pane, mean in (((10, 990), 1.0), ((30, 0), 3.0), ((0, 50), NAN)):
        _, (window, score) = judged(
            "input.x", "drift", names=("x", "_MISSING"), pane=pane, rolling=(9000, 9000), means=(0.0, 0.0, mean)
        )
        since.add(window, score)
    assert since.counted(window).mean == pytest.approx(2.5)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 2)), max_size=12), st.data())
@settings(deadline=None, max_examples=50)
def test_a_restart_changes_nothing(panes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(panes)))
    whole, cut = SinceOnset(), SinceOnset()
    for index, (first, second, onset) in enumerate(panes):
        _, (window, score) = judged("input.x", "ok", pane=(first, second), rolling=(10**6, 0), since_ns=onset)
        if index == at:
            cut = SinceOnset.from_state(json.loads(json.dumps(cut.to_state(), allow_nan=False)))
        whole.add(window, score)
        cut.add(window, score)
    assert whole.to_state() == cut.to_state()


def test_shares_of_nothing_are_zeros() -> None:
    assert shares(np.zeros(2, dtype=np.int64)) == (0.0, 0.0)
    assert shares((1, 3)) == (0.25, 0.75)
