"""The table of the states: is a stream `ok` for more than a day while twice the shift that it states goes unseen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.drift.days import KINDS, Kind, Plan, Shift, first_day_ns, start_traffic
from benchmarks.drift.intervals import interval
from benchmarks.drift.replay import STATES, Replay
from benchmarks.drift.results import recall

STREAMS: Final = 60
SHIFT_DAY: Final = 15
SIZES: Final = (1_000.0, 10_000.0, 86_400.0)
"""Items a day."""
ROOM: Final = 0.12
"""What the most frequent class keeps: it has to lose as much at each time of a day."""
NAMES: Final = (
    "independent", "runs of 5", "runs of 20", "daily ±.05", "daily ±.10", "weekend .06", "weekend .06 and daily ±.06",
    "AR 6 h, sd .015", "load 1:100", "nightly batch",
)  # fmt: skip


def run_states(kind: Kind, plan: Plan) -> dict[str, Any]:
    """Shifts each stream by twice what it states, from a time of its own on; returns how many were found, and how.

    Of the streams that are `ok` before: `found` within a day, `unseen` although `ok` at the end of both days, `weak`
    those that said so meanwhile, `large` those that cannot lose as much.
    """
    rng = np.random.default_rng([plan.seed, 15])
    traffic = start_traffic(kind, plan)
    replay = Replay(
        starts_ns=first_day_ns(traffic), panes=plan.panes, first_panes=np.zeros(plan.streams, dtype=np.int64)
    )
    for day in range(SHIFT_DAY):
        states = replay.judge_day(kind.draw(traffic, day))
    detectable = replay.measure_detectable()
    is_ok = ~replay.find_weak() & (states[:, -1] == STATES.index("ok"))
    shifts = np.array([np.nan if shift is None else 2.0 * shift.shift for shift in detectable])
    is_possible = shifts <= traffic.shares.max(-1) - ROOM
    begin = SHIFT_DAY + rng.random(plan.streams)
    shift = Shift(total_variation=np.nan_to_num(shifts)[:, None], from_day=begin[:, None])
    traffic.plan = replace(plan, shift=shift)
    is_drift, is_weak = [], np.zeros(plan.streams, dtype=bool)
    for day in (SHIFT_DAY, SHIFT_DAY + 1):
        is_drift.append(replay.judge_day(kind.draw(traffic, day)) == STATES.index("drift"))
        is_weak |= replay.find_weak()
    times = SHIFT_DAY + (np.arange(2 * plan.panes) + 1.0) / plan.panes
    is_within = (times[None] > begin[:, None]) & (times[None] <= begin[:, None] + 1.0)
    is_found = (np.concatenate(is_drift, axis=1) & is_within).any(-1)
    counted = is_ok & is_possible
    return {
        "ok": int(is_ok.sum()),
        "large": int((is_ok & ~is_possible).sum()),
        "found": int((counted & is_found).sum()),
        "weak": int((counted & ~is_found & is_weak).sum()),
        "unseen": int((counted & ~is_found & ~is_weak).sum()),
        "stated": float(np.median(shifts[is_ok]) / 2.0) if is_ok.any() else None,
    }


def silent_streams(seed: int, scale: float) -> Iterator[str]:
    """Twice what is stated: found, said to be weak, or missed."""
    streams = max(4, round(STREAMS * scale))
    yield f"{streams} streams a row, panes of 15 minutes, seed {seed}. From a time of day {SHIFT_DAY} on, each"
    yield "stream's own, twice the detectable shift that it stated moves from its most to its least frequent class."
    yield "Of those that were `ok`: found within a day; `weak` at the end of one of the two days; unseen and `ok` all"
    yield "the time, which is what must not be. The most frequent class of some cannot lose as much: they are not"
    yield "counted."
    yield ""
    yield "| kind | items a day | stated | ok | cannot lose it | found | weak | unseen |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    total = unseen = 0
    for kind in KINDS:
        for items in SIZES if kind.name in NAMES else ():
            plan = Plan(streams=streams, days=SHIFT_DAY + 2, pane_s=900.0, items_a_day=items, seed=seed)
            row = recall(("states", kind.name, items, seed, streams), partial(run_states, kind, plan))
            total, unseen = total + row["ok"] - row["large"], unseen + row["unseen"]
            stated = "–" if row["stated"] is None else f"{row['stated']:.3f}"
            cells = " | ".join(str(row[name]) for name in ("ok", "large", "found", "weak", "unseen"))
            yield f"| {kind.name} | {items:,.0f} | {stated} | {cells} |"
    yield ""
    yield f"Unseen: {unseen} of {total} ({interval(unseen, total)})." if total else "No stream was `ok`."
