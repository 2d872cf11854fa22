"""The table of small moves that a tolerance by total variation would forgive: rare classes, holes, outliers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.drift import hidden_values
from benchmarks.drift.intervals import share
from benchmarks.drift.replay import LOG10_LINE, TOLERANCE
from benchmarks.drift.results import recall
from otel_mlmon import semconv
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey

RUNS: Final = 200
REFERENCE: Final = 10_000
PANE: Final = 50
QUIET_PANES: Final = 60
HORIZON_ITEMS: Final = 15_000
CLASSES: Final = (("a", "b", "c", "rare"), (0.5, 0.3, 0.2))


class Move(NamedTuple):
    """One bin, its share before and after."""

    name: str
    bins: tuple[str, ...]
    others: tuple[float, ...]
    """The shares of the other bins, of which the last bin takes its own in proportion."""
    before: float
    after: float
    tolerance: float = TOLERANCE


_DECILES: Final = tuple(f"bin {number}" for number in range(10))
MOVES: Final = (
    Move("rare class .5 → 3 %", *CLASSES, 0.005, 0.03),
    Move("rare class .2 → 2 %", *CLASSES, 0.002, 0.02),
    Move("rare class 1.5 → 0 %", *CLASSES, 0.015, 0.0),
    Move("rare class .5 → .7 %, not to be found", *CLASSES, 0.005, 0.007),
    Move("nulls 0 → 1 %", (*_DECILES, semconv.MISSING), (0.1,) * 10, 0.0, 0.01, 0.05),
    Move("nulls 0 → 3 %", (*_DECILES, semconv.MISSING), (0.1,) * 10, 0.0, 0.03, 0.05),
    Move("new category 0 → 3 %", ("a", "b", "c", semconv.OTHER), (0.5, 0.3, 0.2), 0.0, 0.03, 0.05),
)


def measure(move: Move, seed: int, runs: int) -> dict[str, Any]:
    """Returns the items until each run alarms, None where it does not, and the alarms before."""
    rng = np.random.default_rng([seed, sum(move.name.encode())])
    policy = DetectionPolicy(tolerance=move.tolerance, direction="both")
    evaluator = DriftEvaluator(
        policy_for=lambda _: policy, alarm_line_for=lambda _: LOG10_LINE, statistics={}, has_cycles=False
    )
    others = np.array(move.others) / sum(move.others)
    before, after = (np.append(others * (1.0 - level), level) for level in (move.before, move.after))
    bins = HistogramBins(names=move.bins, is_ordered=move.bins[0] in _DECILES)
    references = [ReferenceCounts(bins=bins, counts=row) for row in rng.multinomial(REFERENCE, before, size=runs)]
    keys = [StreamKey(ModelKey(f"m{run}", ""), "input.x") for run in range(runs)]
    delays: dict[int, int] = {}
    early = 0
    for pane in range(QUIET_PANES + HORIZON_ITEMS // PANE):
        shares = before if pane < QUIET_PANES else after
        waiting = [run for run in range(runs) if run not in delays]
        if not waiting:
            break
        counts = rng.multinomial(PANE, shares, size=len(waiting))
        windows = [
            StreamWindow(
                stream=keys[run], start_ns=pane, end_ns=pane + 1, reference=references[run], pane=row, rolling=row,
                rolling_start_ns=pane,
            )
            for run, row in zip(waiting, counts, strict=True)
        ]  # fmt: skip
        for run, (_, score) in zip(waiting, evaluator.evaluate(windows), strict=True):
            if score.state == "drift":
                delays[run] = (pane + 1 - QUIET_PANES) * PANE
                early += pane < QUIET_PANES
    return {"items": [delays[run] if delays.get(run, 0) > 0 else None for run in range(runs)], "early": early}


OUTLIERS: Final = hidden_values.Scenario(
    name="1 % of values × 1e5",
    draw=lambda rng, items, drift: rng.lognormal(size=items) * np.where(rng.random(items) < 0.01 * drift, 1e5, 1.0),
    is_text=False,
)


def measure_outliers(seed: int, runs: int) -> dict[str, Any]:
    """Returns the same for log-normal values of which some are far too large, counted as they leave the process."""
    items = hidden_values.measure(OUTLIERS, seed, runs).hidden
    return {
        "items": [float(item) if 0.0 < item <= HORIZON_ITEMS else None for item in items],
        "early": int((items == 0.0).sum()),
    }


def rare_moves(seed: int, scale: float) -> Iterator[str]:
    """Small moves of one bin: items until they are found."""
    runs = max(20, round(RUNS * scale))
    yield f"{runs} runs, a reference of {REFERENCE:,}, panes of {PANE}, the default alarm line of 20 streams. Items"
    yield f"until the alarm; share found within {HORIZON_ITEMS:,}; alarms in {QUIET_PANES * PANE:,} items before."
    yield f"Outliers as they leave the process, in panes of {hidden_values.PANE}, alarm line 6.7e6."
    yield ""
    yield "| move | median | 90 % | found | before |"
    yield "|---|--:|--:|--:|--:|"
    rows: dict[str, Callable[[], dict[str, Any]]] = {move.name: partial(measure, move, seed, runs) for move in MOVES}
    rows[OUTLIERS.name] = partial(measure_outliers, seed, runs)
    for name, compute in rows.items():
        row = recall(("rare", name, seed, runs), compute)
        items = np.array([np.inf if item is None else item for item in row["items"]])
        points = [
            f"{point:,.0f}" if np.isfinite(point) else "–" for point in np.quantile(items, [0.5, 0.9], method="higher")
        ]
        found = share(int(np.isfinite(items).sum()), runs)
        yield f"| {name} | {points[0]} | {points[1]} | {found} | {row['early']} |"
