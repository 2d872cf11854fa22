from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.cause import BinCounts, OnsetCounts, compute_bin_shares
from otel_mlmon.processor.alert.message import format_alert
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.testing import SimulatedProcessor
from tests.support.scores import SECOND_NS, judged

NAN = float("nan")


def test_an_hour_of_calm_does_not_hide_ten_seconds_of_drift() -> None:
    counts = OnsetCounts()
    for _ in range(3):
        _, (window, score) = judged(
            "input.x", "drift", is_ordered=True, pane=(10, 90), rolling=(35_000, 36_000), means=(0.3, 0.31, 0.8)
        )
        counts.add(window, score)
    current = counts.since_onset(window)
    assert current.counts == (30, 270)
    assert current.mean == pytest.approx(0.8)


def test_the_rolling_window_is_what_counts_when_it_is_the_shorter() -> None:
    counts = OnsetCounts()
    for _ in range(3):
        _, (window, score) = judged("input.x", "drift", pane=(10, 90), rolling=(20, 180), means=(0.3, 0.7, 0.8))
        counts.add(window, score)
    assert (counts.since_onset(window).counts, counts.since_onset(window).mean) == ((20, 180), 0.7)


def test_a_new_onset_begins_anew_and_no_evidence_forgets() -> None:
    counts = OnsetCounts()
    for onset_ns in (SECOND_NS, SECOND_NS, 9 * SECOND_NS):
        _, (window, score) = judged("input.x", "ok", pane=(1, 2), rolling=(500, 500), since_ns=onset_ns)
        counts.add(window, score)
    assert counts.since_onset(window).counts == (1, 2)
    _, (window, score) = judged("input.x", "ok", pane=(1, 2), rolling=(500, 500))
    counts.add(window, score)
    assert counts.since_onset(window).counts == (500, 500)
    assert counts.by_stream == {}


def test_bins_that_change_begin_anew() -> None:
    counts = OnsetCounts()
    _, (window, score) = judged("input.x", "drift", pane=(1, 2), rolling=(50, 50))
    counts.add(window, score)
    _, (window, score) = judged(
        "input.x", "drift", names=("a", "b", "c"), reference=(1, 1, 1), pane=(1, 2, 3), rolling=(50, 50, 50)
    )
    counts.add(window, score)
    assert counts.since_onset(window).counts == (1, 2, 3)


def test_missing_values_weigh_nothing_in_the_mean() -> None:
    counts = OnsetCounts()
    for pane, mean in (((10, 990), 1.0), ((30, 0), 3.0), ((0, 50), NAN)):
        _, (window, score) = judged(
            "input.x", "drift", names=("x", "_MISSING"), pane=pane, rolling=(9000, 9000), means=(0.0, 0.0, mean)
        )
        counts.add(window, score)
    assert counts.since_onset(window).mean == pytest.approx(2.5)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 2)), max_size=12), st.data())
@settings(deadline=None, max_examples=50)
def test_a_restart_changes_nothing(panes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(panes)))
    lasting, restarted = OnsetCounts(), OnsetCounts()
    for index, (first, second, onset) in enumerate(panes):
        _, (window, score) = judged("input.x", "ok", pane=(first, second), rolling=(10**6, 0), since_ns=onset)
        if index == at:
            restarted = OnsetCounts(decode_record(encode_record(restarted.by_stream), dict[str, BinCounts]))
        lasting.add(window, score)
        restarted.add(window, score)
    assert repr(lasting.by_stream) == repr(restarted.by_stream)


def test_shares_of_nothing_are_zeros() -> None:
    assert compute_bin_shares(np.zeros(2, dtype=np.int64)) == (0.0, 0.0)
    assert compute_bin_shares((1, 3)) == (0.25, 0.75)


def test_a_drift_says_how_small_a_shift_is_found() -> None:
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 1000}}}}) as processor:
        for pane in range(40):
            processor.send_counts("shop", labels={"a": 70, "b": 30} if pane < 30 else {"a": 30, "b": 70})
            processor.advance(10)
        (alert,) = processor.find_alerts(rule="prediction_drift")
        stream = processor.stream("shop", "prediction.label")
    assert stream is not None
    assert alert.causes[0].detectable_shift == pytest.approx(stream["detectable"]["shift"], rel=0.5)
    assert "  Detects   shifts of " in format_alert(alert)
