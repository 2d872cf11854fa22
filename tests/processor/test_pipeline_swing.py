"""What swings around a bound, through the whole pipeline: one alert, and its end once the swing is over."""

from __future__ import annotations

from benchmarks.alerts import PANE_S, run_swing


def test_calls_that_are_slow_and_fast_in_turn_are_one_alert() -> None:
    told = run_swing(300.0, 0.5, panes=round(4 * 300 / PANE_S), seed=3)
    assert told == ["firing"]
