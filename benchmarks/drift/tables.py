"""The tables: each a function from a seed and a scale to lines of Markdown."""

from __future__ import annotations

import math
import statistics as plain
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift import streams
from benchmarks.drift.acceptance import drift_on_cycles, quiet_days, quiet_peers
from benchmarks.drift.accuracy import estimated_accuracy
from benchmarks.drift.detectable import detectable_ratios, detectable_shifts
from benchmarks.drift.faults import injected_faults
from benchmarks.drift.hidden_values import hidden_values
from benchmarks.drift.holidays import drift_as_holidays
from benchmarks.drift.intervals import share
from benchmarks.drift.rare import rare_moves
from benchmarks.drift.rules import ARL_LINE, FLEET_LINE, PEER_RULES, DriftRule, Named, Tolerant, tolerant
from benchmarks.drift.states import silent_streams
from benchmarks.drift.streams import SHARES, Autoregressive, Sticky, Traffic
from otel_mlmon.processor.detect.alternatives import Direction, compute_two_sided_ratios
from otel_mlmon.processor.detect.counts import build_samples
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.evidence import EvidenceBank
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.statistics.registry import STATISTICS
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey

REFERENCE = 10_000
HORIZON_ITEMS = 60_000
LOG10_FLEET_LINE = FLEET_LINE / math.log(10.0)


def references_of(rng: np.random.Generator, runs: int, shares: NDArray[np.float64] = SHARES) -> NDArray[np.int64]:
    """A reference for each run."""
    return rng.multinomial(REFERENCE, shares, size=runs)


def windows_in_alarm(
    rule: DriftRule, traffic: Traffic, rng: np.random.Generator, runs: int, windows: int
) -> NDArray[np.bool_]:
    """Shape (windows, runs)."""
    return np.array([rule.alarms(traffic(rng, runs, window)) for window in range(windows)])


def false_alarms(seed: int, scale: float) -> Iterator[str]:
    """No drift: how often at least one of 100 windows is an alarm."""
    runs = max(50, int(1_000 * scale))
    yield f"{runs} runs of 100 windows without drift, a reference of {REFERENCE:,} each. Share of runs with an alarm"
    yield "(95 % interval), and of windows."
    yield ""
    yield "| rule | n = 500 | 1,000 | 10,000 |"
    yield "|---|--:|--:|--:|"
    for rule in (*PEER_RULES, tolerant()):
        cells = []
        for items in (500, 1_000, 10_000):
            rng = np.random.default_rng([seed, items])
            in_alarm = windows_in_alarm(
                rule.begin(references_of(rng, runs), rng, items), streams.independent(SHARES, items), rng, runs, 100
            )
            cells.append(f"{share(int(in_alarm.any(0).sum()), runs)}; {in_alarm.mean():.2g} a window")
        yield f"| {rule.name} | {' | '.join(cells)} |"


def _delays(named: Named, items: int, drift: float, seed: int, runs: int) -> tuple[float, float, int]:
    """Mean delay in windows of those found within 50, the share not found, and how many alarmed before."""
    rng = np.random.default_rng([seed, items, round(drift * 100)])
    rule = named.begin(references_of(rng, runs), rng, items)
    quiet_alarms = windows_in_alarm(rule, streams.independent(SHARES, items), rng, runs, 12)
    in_alarm = windows_in_alarm(rule, streams.independent(streams.moved(drift), items), rng, runs, 50)
    is_found = in_alarm.any(0)
    delays = in_alarm.argmax(0)[is_found] + 1
    return (
        float(delays.mean()) if delays.size else math.nan,
        1.0 - float(is_found.mean()),
        int(quiet_alarms.any(0).sum()),
    )


def delays_in_windows(seed: int, scale: float) -> Iterator[str]:
    """Drift after 12 windows: when it is found."""
    runs = max(40, int(400 * scale))
    drifts = (0.02, 0.05, 0.10, 0.20)
    yield f"So much of the traffic moves from the first class to the second after 12 windows; {runs} runs. Mean windows"
    yield "to the alarm / share of runs without one in 50 windows. A rule that alarms anyway finds everything:"
    yield "read it with the table above. .02 is what ours is told to forgive."
    yield ""
    yield "| rule | n | " + " | ".join(f"TV {drift:.2f}" for drift in drifts) + " |"
    yield "|---|--:|" + "--:|" * len(drifts)
    for rule in (*PEER_RULES, tolerant(), tolerant(line=FLEET_LINE)):
        for items in (500, 1_000, 10_000):
            cells = []
            for drift in drifts:
                mean, missed, _ = _delays(rule, items, drift, seed, runs)
                cells.append(f"{'–' if math.isnan(mean) else f'{mean:.1f}'} / {missed:.2g}")
            yield f"| {rule.name} | {items:,} | {' | '.join(cells)} |"


def delays_in_items(seed: int, scale: float) -> Iterator[str]:
    """Ours at any size of a pane."""
    drifts = (0.05, 0.10, 0.20, 0.35)
    yield "Ours, in items, by the size of a pane: mean of those found within 60,000 items / share of runs without one."
    yield "30 panes or 6,000 items without drift before; in the last column, none after the design effect is known."
    yield ""
    yield "| alarm line | pane | runs | " + " | ".join(f"TV {drift:.2f}" for drift in drifts) + " | TV 0.10 at once |"
    yield "|---|--:|--:|" + "--:|" * (len(drifts) + 1)
    for name, line in (("1e4", ARL_LINE), ("6.7e6", FLEET_LINE)):
        for pane in (1, 10, 100, 500, 1_000):
            runs = max(20, int((40 if pane == 1 else 150 if pane == 10 else 600) * scale))
            # Panes of one item are slow to simulate: a quick run leaves out what takes tens of thousands of them.
            cells = [
                "not run" if pane == 1 and drift < 0.1 and scale < 1.0 else _items(line, pane, drift, seed, runs)
                for drift in drifts
            ]
            cells.append(_items(line, pane, 0.10, seed, runs, is_at_once=True))
            yield f"| {name} | {pane:,} | {runs} | {' | '.join(cells)} |"


def _items(
    line: float, pane: int, drift: float, seed: int, runs: int, reference: int = REFERENCE, *, is_at_once: bool = False
) -> str:
    rng = np.random.default_rng([seed, pane, round(drift * 100)])
    rule = Tolerant(rng.multinomial(reference, SHARES, size=runs), line=line, tolerance=0.02)
    before = max(50, pane)
    quiet = 0
    while not rule.is_calibrated if is_at_once else quiet < max(30, 6_000 // before):
        rule.alarms(rng.multinomial(before, SHARES, size=runs))
        quiet += 1
    waiting, delays = np.arange(runs), []
    for done in range(pane, HORIZON_ITEMS + 1, pane):
        is_found = rule.update(waiting, rng.multinomial(pane, streams.moved(drift), size=waiting.size))
        delays += [done] * int(is_found.sum())
        waiting = waiting[~is_found]
        if not waiting.size:
            break
    mean = f"{plain.fmean(delays):,.0f}" if delays else "–"
    return f"{mean} / {share(int(waiting.size), runs) if waiting.size else '0'}"


def references_matter(seed: int, scale: float) -> Iterator[str]:
    """TV .05, by how much the reference knows."""
    runs = max(40, int(400 * scale))
    yield "Five points of traffic, panes of 500, by the size of the reference: mean items / share not found in 60,000."
    yield "What cannot be won by anybody: the share of references from which the likelihood ratio of the true shares"
    yield "against the nearest of what is forgiven would on average not reach the line within 60,000 items."
    yield ""
    yield "| reference | line | ours | cannot be won |"
    yield "|--:|---|--:|--:|"
    for reference in (5_000, 10_000, 30_000, 100_000):
        for name, line in (("1e4", ARL_LINE), ("6.7e6", FLEET_LINE)):
            cell = _items(line, 500, 0.05, seed, runs, reference)
            yield f"| {reference:,} | {name} | {cell} | {_beyond_anybody(line, reference, seed):.3f} |"


def _beyond_anybody(line: float, reference: int, seed: int) -> float:
    """Share of references whose nearest forgiven shares are too near to TV .05, with φ = 1."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(reference, SHARES, size=4_000)
    r = (counts.astype(np.float64) + 0.5) / (reference + SHARES.size / 2.0)
    radius = np.full(len(r), 0.02 + math.sqrt(SHARES.size / (4.0 * reference)))
    q: NDArray[np.float64] = np.broadcast_to(streams.moved(0.05), r.shape)
    growth = (q * np.log(compute_two_sided_ratios(q[:, None], r, radius)[:, 0])).sum(-1)
    return float((growth * HORIZON_ITEMS < line).mean())


def not_independent(seed: int, scale: float) -> Iterator[str]:
    """Traffic whose long-run shares do not move, but whose items are not independent."""
    runs = max(30, int(300 * scale))
    yield f"Windows of 1,000, {runs} runs of 100 windows, no drift of the long-run shares: share of runs with an alarm"
    yield "(95 % interval). Of sticky sessions the reference is as bursty: 10,000 items for every item of a mean run."
    yield "The last row moves by more than is forgiven: a cycle that large needs the hour-of-week reference."
    yield ""
    rules = (PEER_RULES[1], PEER_RULES[2], PEER_RULES[3], PEER_RULES[4], tolerant(), tolerant(line=FLEET_LINE))
    yield "| stream | " + " | ".join(rule.name for rule in rules) + " |"
    yield "|---|" + "--:|" * len(rules)
    kinds: tuple[tuple[str, Traffic], ...] = (
        ("Dirichlet(500 p) a window", streams.overdispersed(500.0, 1_000)),
        ("Dirichlet(2000 p) a window", streams.overdispersed(2_000.0, 1_000)),
        ("AR(.8), sd .05 of log shares", Autoregressive(1_000)),
        ("daily cycle .03", streams.cycle(0.03, 1_000)),
        *((f"sticky sessions, mean {mean}", Sticky(mean, 1_000)) for mean in (5, 10, 20, 30, 50)),
        ("daily cycle .10", streams.cycle(0.10, 1_000)),
    )
    for name, traffic in kinds:
        cells = []
        for rule in rules:
            rng = np.random.default_rng([seed, len(name)])
            if isinstance(traffic, Autoregressive):
                traffic.state = None
            references = references_of(rng, runs)
            if isinstance(traffic, Sticky):
                traffic.last = None
                references = traffic.of(rng, runs, REFERENCE * traffic.mean_run)
            in_alarm = windows_in_alarm(rule.begin(references, rng, 1_000), traffic, rng, runs, 100)
            cells.append(share(int(in_alarm.any(0).sum()), runs))
        yield f"| {name} | {' | '.join(cells)} |"


def comes_and_goes(seed: int, scale: float) -> Iterator[str]:
    """Episodes of drift: each must be found as soon as the first."""
    runs = max(30, int(200 * scale))
    yield f"Five times 5,000 items of drift and 10,000 without, times the design effect; alarm line 6.7e6, {runs} runs."
    yield "Mean items to the alarm, over the design effect / share of runs without one."
    yield ""
    yield "| stream | pane | first | second | third | fourth | fifth |"
    yield "|---|--:|" + "--:|" * 5
    for mean, drift in ((1, 0.10), (1, 0.20), (5, 0.20)):
        for pane in (100, 1_000):
            name = "independent" if mean == 1 else f"sticky sessions, mean {mean}"
            cells = " | ".join(_episodes(Sticky(mean, pane), drift, seed, runs))
            yield f"| {name}, TV {drift:.2f} | {pane:,} | {cells} |"


def _episodes(traffic: Sticky, drift: float, seed: int, runs: int) -> Iterator[str]:
    rng = np.random.default_rng([seed, traffic.items, traffic.mean_run])
    effect = traffic.design_effect
    rule = Tolerant(traffic.of(rng, runs, REFERENCE * traffic.mean_run), line=FLEET_LINE, tolerance=0.02)
    for _ in range(int(20_000 * effect) // traffic.items):
        rule.alarms(traffic(rng, runs, 0))
    for _ in range(5):
        in_alarm = np.array([
            rule.alarms(traffic.of(rng, runs, traffic.items, streams.moved(drift)))
            for _ in range(int(5_000 * effect) // traffic.items)
        ])  # fmt: skip
        # One that was in alarm from before has not found anything.
        is_found = in_alarm.any(0) & ~in_alarm.all(0) if traffic.items < 1_000 else in_alarm.any(0)
        mean = f"{(in_alarm.argmax(0)[is_found] + 1).mean() * traffic.items / effect:,.0f}" if is_found.any() else "–"
        yield f"{mean} / {1.0 - is_found.mean():.2g}"
        for _ in range(int(10_000 * effect) // traffic.items):
            rule.alarms(traffic(rng, runs, 0))


def confidence(seed: int, scale: float) -> Iterator[str]:
    """Confidence collapses."""
    runs = max(30, int(300 * scale))
    falls = (0.01, 0.03, 0.05, 0.10, 0.30)
    yield f"Confidence ~ Beta(9, 1) in ten bins, its mean falls from .90 by so much; {runs} runs. Share of runs with an"
    yield "alarm in 20,000 items before, then mean items to the alarm / share without one in 20,000. Ours is one-sided."
    yield ""
    yield "| rule | window | false alarm | " + " | ".join(f"−{fall:.2f}" for fall in falls) + " |"
    yield "|---|--:|--:|" + "--:|" * len(falls)
    quiet = streams.confidence(0.9)
    rules = [
        (tolerant(direction="down"), 50),
        (tolerant(tolerance=0.0, direction="down"), 50),
        (tolerant(direction="down"), 500),
    ]
    rules += [(rule, items) for items in (50, 500) for rule in PEER_RULES[1:4]]
    for named, items in rules:
        cells, alarms = [], 0
        for fall in falls:
            rng = np.random.default_rng([seed, items, round(fall * 100)])
            rule = named.begin(references_of(rng, runs, quiet), rng, items)
            quiet_alarms = windows_in_alarm(rule, streams.independent(quiet, items), rng, runs, 20_000 // items)
            alarms = int(quiet_alarms.any(0).sum())
            in_alarm = windows_in_alarm(
                rule, streams.independent(streams.confidence(0.9 - fall), items), rng, runs, 20_000 // items
            )
            is_found = in_alarm.any(0)
            mean = f"{(in_alarm.argmax(0)[is_found] + 1).mean() * items:,.0f}" if is_found.any() else "–"
            cells.append(f"{mean} / {1.0 - is_found.mean():.2g}")
        yield f"| {named.name} | {items} | {share(alarms, runs)} | {' | '.join(cells)} |"


def cost(seed: int, scale: float) -> Iterator[str]:
    """What a pane costs."""
    yield "Milliseconds for one pane of so many streams of 1,000 items each, median (and least); shared machine."
    yield "The last column is all of it, from windows to scores: what `DriftEvaluator.evaluate` takes."
    yield ""
    yield "| streams | bins | direction | evidence | ten statistics | windows to scores |"
    yield "|--:|--:|---|--:|--:|--:|"
    statistics = STATISTICS.load_all_plugins().values()
    cases: tuple[tuple[int, int, Direction], ...] = (
        (1, 10, "both"), (21, 10, "both"), (21, 4, "both"), (1, 1_000, "both"),
        (10_000, 2, "up"), (10_000, 10, "down"), (10_000, 10, "both"),
    )  # fmt: skip
    for count, bins, direction in cases:
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.full(bins, 3.0))
        bank, evaluator = EvidenceBank(bins, direction), _evaluator(direction)
        references = rng.multinomial(REFERENCE, shares, size=count)
        known_references = [
            ReferenceCounts(bins=HistogramBins(names=("",) * bins, is_ordered=True), counts=counts)
            for counts in references
        ]
        rows = np.array([bank.add(reference, 0.02) for reference in references])
        times: list[list[float]] = [[], [], []]
        for turn in range(12 + max(4, int((8 if count > 1_000 else 100) * scale))):
            panes = rng.multinomial(1_000, shares, size=count)
            windows = _windows(known_references, panes, turn)
            start_s = time.perf_counter()
            bank.update(rows, panes, np.full(count, turn), FLEET_LINE)
            counted_s = time.perf_counter()
            samples = build_samples(references, panes)
            for statistic in statistics:
                statistic.measure(samples)
            compared_s = time.perf_counter()
            evaluator.evaluate(windows)
            if turn >= 12:
                times[0].append(counted_s - start_s)
                times[1].append(compared_s - counted_s)
                times[2].append(time.perf_counter() - compared_s)
        cells = [f"{plain.median(seconds) * 1e3:.2f} ({min(seconds) * 1e3:.2f})" for seconds in times]
        yield f"| {count:,} | {bins:,} | {direction} | {' | '.join(cells)} |"


def _evaluator(direction: Direction) -> DriftEvaluator:
    policy = DetectionPolicy(tolerance=0.02, direction=direction)
    return DriftEvaluator(policy_for=lambda _: policy, alarm_line_for=lambda _: LOG10_FLEET_LINE)


def _windows(references: list[ReferenceCounts], panes: NDArray[np.int64], turn: int) -> list[StreamWindow]:
    """One window a stream; its rolling window is the pane itself."""
    return [
        StreamWindow(
            stream=StreamKey(ModelKey("cost", ""), f"input.{place}"),
            start_ns=turn,
            end_ns=turn + 1,
            reference=reference,
            pane=pane,
            rolling=pane,
            rolling_start_ns=turn,
        )
        for place, (reference, pane) in enumerate(zip(references, panes, strict=True))
    ]


TABLES = {
    "False alarms": false_alarms,
    "Delay in windows": delays_in_windows,
    "Delay in items, at any size of a pane": delays_in_items,
    "What the reference must know": references_matter,
    "Items that are not independent": not_independent,
    "Drift that comes and goes": comes_and_goes,
    "Confidence": confidence,
    "What leaves the process": hidden_values,
    "Detectable shift": detectable_shifts,
    "Detectable growth of a rare bin": detectable_ratios,
    "Quiet days": quiet_days,
    "Quiet days, rules of others": quiet_peers,
    "Drift on cycles": drift_on_cycles,
    "Drift that looks like a holiday": drift_as_holidays,
    "States": silent_streams,
    "Rare classes, holes, new categories": rare_moves,
    "Injected faults": injected_faults,
    "Estimated accuracy": estimated_accuracy,
    "Cost": cost,
}
