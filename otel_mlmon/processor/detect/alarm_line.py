"""The alarm line: how large the evidence must be, from how many false alarms the operator accepts.

An e-detector that alarms at W >= A has without drift an average run length to a false alarm of A panes or more. With
m streams watched, each at the line A·m, there is over all of them no more than one false alarm in A panes on average,
however the streams depend on each other. Being strict is cheap: ten times the line costs about a quarter of a window
of delay.

Source: Shin, Ramdas and Rinaldo, E-detectors: a nonparametric framework for sequential change detection, NEJSDS 2024
(theorem 2.4: the average run length is at least the threshold).
"""

from __future__ import annotations

import math
from typing import Final

MIN_LOG10: Final = 1.0
"""No line is under ten to one, however many false alarms are accepted."""


def log10_alarm_line(*, false_alarms: float, per_s: float, pane_s: float, streams: int) -> float:
    """Computes log10 of A·m, with A the panes in which one false alarm is accepted and m = `streams`.

    One false alarm in 30 days, panes of 10 s and 26 streams make 6.8 (a line of 6.7·10⁶).

    Args:
        false_alarms: How many are accepted, above 0.
        per_s: In what time, seconds, above 0.
        pane_s: Length of a pane, seconds, above 0.
        streams: How many streams are watched; fewer than 1 counts as 1.

    Raises:
        ValueError: A number is not above 0.
    """
    if not (false_alarms > 0.0 and per_s > 0.0 and pane_s > 0.0):
        raise ValueError("false_alarms, per_s and pane_s must be above 0")
    panes = per_s / pane_s / false_alarms
    return max(MIN_LOG10, math.log10(panes * max(1, streams)))
