"""The price of public holidays: how long a drift goes untold that looks as a day of rest does, or nearly so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.drift.days import DrawDay, Kind, Plan, Traffic, first_day_ns, four_classes, rest, start_traffic
from benchmarks.drift.replay import STATES, Replay
from benchmarks.drift.results import recall
from otel_mlmon.types import Counts, Floats

STREAMS: Final = 21
"""Three for each weekday that the drift may begin on."""
ONSET_DAY: Final = 16
DAYS_AFTER: Final = 5
REST_MOVE: Final = 0.06
"""What a weekend moves from the first class to the second."""

Change = Callable[[Floats], Floats]
"""From what the days move to what they move with the drift."""

CHANGES: Final[dict[str, Change]] = {
    "all days as Sundays": lambda moved: np.full_like(moved, REST_MOVE),
    "the same way, .04 beyond a Sunday": lambda moved: np.full_like(moved, REST_MOVE + 0.04),
    "the same way, twice as far": lambda moved: np.full_like(moved, 2.0 * REST_MOVE),
    "the other way, .10": lambda moved: moved - 0.10,
}


def drift_week(change: Change, onset_days: float) -> DrawDay:
    """A weekend of another mix, and a drift from a time in days on."""

    def draw(traffic: Traffic, day: int) -> Counts:
        times = np.broadcast_to((day + traffic.times())[None], (traffic.plan.streams, traffic.plan.panes))
        weekdays = (traffic.weekdays[:, None] + np.floor(times).astype(int)) % 7
        moved = np.array(rest(REST_MOVE, 5, 6))[weekdays]
        return traffic.draw(day, np.where(times >= onset_days, change(moved), moved))

    return draw


def run_holiday_drift(change: Change, onset_days: float, plan: Plan) -> dict[str, Any]:
    """Returns the hours until each stream alarms, None where it does not, and how many were in drift before."""
    kind = Kind(name="weekend", draw=drift_week(change, onset_days), shares=four_classes)
    traffic = start_traffic(kind, plan)
    replay = Replay(
        starts_ns=first_day_ns(traffic), panes=plan.panes, first_panes=np.zeros(plan.streams, dtype=np.int64)
    )
    states = np.concatenate([replay.judge_day(kind.draw(traffic, day)) for day in range(plan.days)], axis=1)
    is_drift = states == STATES.index("drift")
    onset = round(onset_days * plan.panes)
    after = is_drift[:, onset:]
    hours = np.where(after.any(-1), (after.argmax(-1) + 1) * plan.pane_s / 3_600.0, np.inf)
    return {
        "hours": [float(hour) if np.isfinite(hour) else None for hour in hours],
        "before": int(is_drift[:, onset - 1].sum()),
    }


def drift_as_holidays(seed: int, scale: float) -> Iterator[str]:
    """Drift that looks like a holiday: hours until it is told."""
    streams = max(7, 7 * round(STREAMS * scale / 7.0))
    yield f"{streams} streams with a weekend of {REST_MOVE:g}, panes of 5 minutes, 86,400 items a day, seed {seed};"
    yield f"from a midnight or a noon of day {ONSET_DAY} on, which is each weekday as often. Hours until the alarm;"
    yield f"told within {DAYS_AFTER} days."
    yield ""
    yield "| drift | from | least | median | most | told |"
    yield "|---|---|--:|--:|--:|--:|"
    for name, change in CHANGES.items():
        for begin, onset_days in (("midnight", ONSET_DAY + 0.0), ("noon", ONSET_DAY + 0.5)):
            plan = Plan(streams=streams, days=ONSET_DAY + DAYS_AFTER + 1, pane_s=300.0, items_a_day=86_400.0, seed=seed)
            key = ("as holidays", name, begin, seed, streams)
            row = recall(key, partial(run_holiday_drift, change, onset_days, plan))
            hours = np.array([np.inf if hour is None or hour > 24.0 * DAYS_AFTER else hour for hour in row["hours"]])
            points = np.quantile(hours, [0.0, 0.5, 1.0], method="higher")
            cells = " | ".join(f"{point:.1f}" if np.isfinite(point) else "–" for point in points)
            yield f"| {name} | {begin} | {cells} | {int(np.isfinite(hours).sum())} of {streams} |"
