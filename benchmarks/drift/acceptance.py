"""The tables of traffic with days: no alarm without drift, and how soon drift on a cycle is found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.drift.days import KINDS, Kind, Plan, Shift, draw_days, first_day_ns, start_traffic
from benchmarks.drift.intervals import share
from benchmarks.drift.replay import STATES, Replay, find_alarms
from benchmarks.drift.results import recall
from benchmarks.drift.rules import PEER_RULES

STREAMS: Final = 60
QUIET_DAYS: Final = 30
SHIFT_DAY: Final = 14
WATCHED_DAYS: Final = 4
SIZES: Final = ((300.0, 86_400.0), (10.0, 1_000.0), (10.0, 86_400.0))
"""Length of a pane, seconds, and items a day."""
FAST: Final = ("independent", "daily ±.10", "weekend .06", "nightly batch", "weekly burst of a rare class")
"""Kinds that are also run at panes of 10 s, which takes thirty times as long."""
SHIFTS: Final = (
    ("independent", 0.10), ("independent", 0.15), ("daily ±.05", 0.10), ("daily ±.05", 0.15), ("daily ±.05", 0.20),
    ("daily ±.10", 0.10), ("daily ±.10", 0.15), ("daily ±.10", 0.20), ("weekend .06", 0.10), ("nightly batch", 0.10),
)  # fmt: skip


def find_kind(name: str) -> Kind:
    """Returns a kind of traffic by its name.

    Raises:
        KeyError: There is none.
    """
    return {kind.name: kind for kind in KINDS}[name]


def run_quiet(kind: Kind, plan: Plan) -> dict[str, Any]:
    """Judges quiet days; returns alarms before and after the traffic is known."""
    start_s = time.perf_counter()
    traffic = start_traffic(kind, plan)
    first_panes = np.random.default_rng([plan.seed, 7]).integers(0, plan.panes, plan.streams)
    replay = Replay(starts_ns=first_day_ns(traffic), panes=plan.panes, first_panes=first_panes)
    days, weak_days = [], []
    for day in range(plan.days):
        days.append(replay.judge_day(kind.draw(traffic, day)))
        weak_days.append(replay.find_weak())
    alarms = [(stream, day, day - first_panes[stream] / plan.panes) for stream, day in find_alarms(np.stack(days, 1))]
    late = [alarm for alarm in alarms if alarm[2] >= kind.settled_after_days]
    settled = np.array(weak_days)[kind.settled_after_days :]
    return {
        "early": len(alarms) - len(late),
        "late": len(late),
        "late_days": [round(float(age), 2) for _, _, age in late],
        "early_while_ok": sum(
            not weak_days[max(int(day) - 1, 0)][stream] for stream, day, age in alarms if age < kind.settled_after_days
        ),
        "ok": float(1.0 - settled.mean()) if settled.size else None,
        "streams": plan.streams,
        "design_effect": float(np.median(replay.design_effects)),
        "seconds": round(time.perf_counter() - start_s),
    }


def run_shift(kind: Kind, plan: Plan) -> dict[str, Any]:
    """Judges days that shift; returns the hours until each stream alarms, None where it does not."""
    assert plan.shift is not None
    traffic = start_traffic(kind, plan)
    replay = Replay(
        starts_ns=first_day_ns(traffic), panes=plan.panes, first_panes=np.zeros(plan.streams, dtype=np.int64)
    )
    states = np.stack([replay.judge_day(kind.draw(traffic, day)) for day in range(plan.days)], axis=1)
    from_day = int(plan.shift.from_day)
    is_drift = states == STATES.index("drift")
    was_drift = is_drift[:, from_day - 1, -1]
    after = is_drift[:, from_day:].reshape(plan.streams, -1)
    hours = np.where(after.any(-1), (after.argmax(-1) + 1) * plan.pane_s / 3_600.0, np.inf)[~was_drift]
    return {"hours": [float(hour) if np.isfinite(hour) else None for hour in hours]}


def quiet_days(seed: int, scale: float) -> Iterator[str]:
    """No drift: alarms of every kind of traffic."""
    streams = max(4, round(STREAMS * scale))
    days = QUIET_DAYS if scale >= 0.2 else 10
    yield f"{streams} streams, {days} days, seed {seed}: alarms that begin before a stream knows its traffic (third"
    yield "day; second weekend; tenth day of a batch of changing size), those of them in streams that were not `weak`"
    yield "the day before, alarms after it, the share of the days after it that end `ok`, and the median φ. Each"
    yield "stream begins at a time and a weekday of its own. The aim is one late alarm at most of 60 streams, and one"
    yield "a stream in four weeks where a rare class comes in bursts; no constant of the engine was chosen on these"
    yield "draws."
    yield ""
    yield "| kind | pane | items a day | early | while ok | late | late, share of streams at most | days ok | φ | s |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for pane_s, items in SIZES:
        for kind in KINDS:
            if pane_s < 60.0 and (kind.name not in FAST or (scale < 1.0 and items > 10_000.0)):
                continue
            plan = Plan(streams=streams, days=days, pane_s=pane_s, items_a_day=items, seed=seed)
            key = ("quiet", kind.name, pane_s, items, seed, streams, days)
            row = recall(key, partial(run_quiet, kind, plan))
            upper = share(min(row["late"], streams), streams).partition("–")[2].rstrip(")")
            ok = "–" if row["ok"] is None else f"{row['ok']:.2f}"
            yield (
                f"| {kind.name} | {pane_s:g} s | {items:,.0f} | {row['early']} | {row['early_while_ok']} | "
                f"{row['late']} | {upper} | {ok} | {row['design_effect']:.1f} | {row['seconds']} |"
            )


def quiet_peers(seed: int, scale: float) -> Iterator[str]:
    """The same kinds of quiet days under the rules of others."""
    streams = max(4, round(20 * scale))
    yield f"The same kinds, {streams} streams, {QUIET_DAYS} days in windows of an hour (all but the first day), the"
    yield "first day as reference: alarms that begin, of 20 streams in 30 days, of rules of others from their formulas;"
    yield "the libraries themselves are asked in the last table."
    yield ""
    yield f"| kind | {' | '.join(rule.name for rule in PEER_RULES)} |"
    yield "|---|" + "--:|" * len(PEER_RULES)
    for kind in KINDS:
        plan = Plan(streams=streams, days=QUIET_DAYS, pane_s=3_600.0, items_a_day=86_400.0, seed=seed)
        first, *others = draw_days(kind, plan)
        cells = []
        for named in PEER_RULES:
            rng = np.random.default_rng(seed)
            rule = named.begin(first.sum(1), rng, round(plan.items_a_day / 24.0))
            with np.errstate(all="ignore"):
                windows = (day[:, hour] for day in others for hour in range(plan.panes))
                flags = np.array([rule.alarms(window) & window.any(-1) for window in windows])
            begins = int((flags[1:] & ~flags[:-1]).sum() + flags[0].sum())
            cells.append(f"{begins * 20.0 / streams:,.0f}")
        yield f"| {kind.name} | {' | '.join(cells)} |"


def drift_on_cycles(seed: int, scale: float) -> Iterator[str]:
    """Drift from day 14 on: hours until it is found."""
    streams = max(4, round(STREAMS * scale / 2.0))
    yield f"{streams} streams, panes of 5 minutes, 86,400 items a day; so much moves from one class to another from day"
    yield f"{SHIFT_DAY} on. Hours until the alarm, median / 90 % point; share found within {WATCHED_DAYS} days."
    yield ""
    yield "| kind | TV | median | 90 % | found |"
    yield "|---|--:|--:|--:|--:|"
    for name, variation in SHIFTS:
        shift = Shift(total_variation=variation, from_day=SHIFT_DAY)
        plan = Plan(
            streams=streams, days=SHIFT_DAY + WATCHED_DAYS, pane_s=300.0, items_a_day=86_400.0, seed=seed, shift=shift
        )
        row = recall(("shift", name, variation, seed, streams), partial(run_shift, find_kind(name), plan))
        hours = np.array([np.inf if hour is None else hour for hour in row["hours"]])
        points = [
            f"{point:.1f}" if np.isfinite(point) else "–" for point in np.quantile(hours, [0.5, 0.9], method="higher")
        ]
        found = share(int(np.isfinite(hours).sum()), hours.size)
        yield f"| {name} | {variation:.2f} | {points[0]} | {points[1]} | {found} |"
