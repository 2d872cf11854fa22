from __future__ import annotations

import math

import pytest

from otel_mlmon.processor.detect.score import compute_log10_alarm_line


def test_one_a_month_over_26_streams() -> None:
    line = compute_log10_alarm_line(false_alarms=1, per_s=30 * 86_400.0, pane_s=10.0, streams=26)
    assert line == pytest.approx(math.log10(259_200 * 26), abs=1e-12)


def test_ten_times_the_alarms_is_one_decade_less() -> None:
    strict, lax = (
        compute_log10_alarm_line(false_alarms=alarms, per_s=1e6, pane_s=10.0, streams=3) for alarms in (1.0, 10.0)
    )
    assert strict - lax == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("alarms", "streams"), [(1e9, 1), (1e6, 0)])
def test_never_under_ten_to_one(alarms: float, streams: int) -> None:
    assert compute_log10_alarm_line(false_alarms=alarms, per_s=60.0, pane_s=10.0, streams=streams) == 1.0


@pytest.mark.parametrize(("alarms", "per_s", "pane_s"), [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, math.nan)])
def test_refuses_what_is_not_above_zero(alarms: float, per_s: float, pane_s: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        compute_log10_alarm_line(false_alarms=alarms, per_s=per_s, pane_s=pane_s, streams=1)
