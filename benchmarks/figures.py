"""Takes the figures that `make compare` pairs: costs of this revision, printed as one line of JSON.

Shared machines change their speed from one second to the next: every figure is a ratio to a cost that no revision can
change, taken beside it in the same process: the bare `run` of the same round, or a fixed mix of Python and numpy.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np

from benchmarks.backtest.__main__ import WINDOW, table_of
from benchmarks.hot_path import CASES, measure
from otel_mlmon.backtest.columns import build_table_profile, choose_column_kinds
from otel_mlmon.backtest.replay_table import replay_table
from otel_mlmon.backtest.request import BacktestRequest, WindowLength
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.table.table import ignore_progress
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.types import ModelKey
from tests.cases import support

BINS = 10
PANE_NS = 10 * 10**9


def yardstick() -> float:
    """Returns the CPU seconds of a fixed mix of Python and numpy."""
    numbers = np.random.default_rng(0).normal(size=200_000)
    begin = time.process_time()
    np.sort(numbers)
    np.exp(numbers).cumsum()
    sum(number * 0.5 for number in range(100_000))
    return time.process_time() - begin


def relative_cpu(work: Callable[[], object], rounds: int) -> float:
    """Returns the CPU time of `work` over that of the yardstick before and after it, the median over rounds."""
    ratios = []
    for _ in range(rounds):
        gc.collect()
        before = yardstick()
        begin = time.process_time()
        work()
        seconds = time.process_time() - begin
        ratios.append(2 * seconds / (before + yardstick()))
    return statistics.median(ratios)


def hot_path() -> dict[str, float]:
    """Returns the cost of an instrumented call over the bare call of the same round."""
    figures = {}
    for case, name in ((CASES[0], "tight loop"), (CASES[1], "decoded after")):
        variants = measure(case, rounds=4, calls=2500, names=("bare",))
        bare, instrumented = variants["bare"], variants["otel_mlmon"]
        for what in ("p50", "cpu"):
            pairs = zip(getattr(instrumented, f"{what}_ns"), getattr(bare, f"{what}_ns"), strict=True)
            figures[f"run, {name}: {what}"] = statistics.median(cost / unit for cost, unit in pairs)
    return figures


def evaluation(streams: int, panes: int) -> float:
    """Returns the cost of the evidence and the statistics of one pane of many streams."""
    generator, shares = np.random.default_rng(0), np.full(BINS, 1 / BINS)
    bins = HistogramBins(
        names=tuple(f"b{number}" for number in range(BINS)), is_ordered=True, edges=tuple(map(float, range(BINS - 1)))
    )
    keys = [StreamKey(ModelKey("m", "1"), f"input.f{number}") for number in range(streams)]
    references = [ReferenceCounts(bins=bins, counts=generator.multinomial(10_000, shares)) for _ in keys]
    policy = DetectionPolicy(tolerance=0.05, direction="both")
    evaluator = DriftEvaluator(policy_for=lambda _: policy, alarm_line_for=lambda _: 6.8)
    costs = []
    for pane in range(panes):
        windows = []
        for key, reference in zip(keys, references, strict=True):
            counts = generator.multinomial(1000, shares)
            windows.append(
                StreamWindow(
                    stream=key, start_ns=pane * PANE_NS, end_ns=(pane + 1) * PANE_NS, reference=reference,
                    pane=counts, rolling=counts, rolling_start_ns=0,
                )
            )  # fmt: skip

        def work(windows: list[StreamWindow] = windows) -> None:
            evaluator.evaluate(windows)
            evaluator.measure(
                [(window.reference, window.rolling) for window in windows if window.reference is not None]
            )

        costs.append(relative_cpu(work, 1))
    return statistics.median(costs[len(costs) // 2 :])


def processor(models: int, panes: int) -> float:
    """Returns the cost of one pane of models with 98 features: decoded, counted, evaluated, stored, published."""
    buckets = list(range(1, 31))
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 2000}}}}) as simulated:

        def run() -> None:
            end_ns = simulated.now_ns
            for number in range(models):
                request = support.MetricsRequest(f"sender-{number}")
                span = (end_ns - PANE_NS + 1, end_ns)
                request.predictions("a", 465, *span, model=f"m{number}").durations(
                    0.002, 465, *span, model=f"m{number}"
                )
                for feature in range(98):
                    request.feature(f"f{feature}", buckets, *span, model=f"m{number}")
                simulated.receive(request.message)
            simulated.advance(10)

        for _ in range(8):
            run()
        return relative_cpu(run, panes)


def backtest() -> float:
    """Returns the cost of a backtest of 200,000 rows with 21 columns."""
    reference, data = table_of(WINDOW, 1), table_of(200_000, 2)
    columns = choose_column_kinds(reference, {}, timestamp=None)
    profile = build_table_profile(reference, columns)
    request = BacktestRequest(reference="ref", data="data", window=WindowLength(rows=WINDOW))
    return relative_cpu(lambda: replay_table(request, data, profile, columns, ignore_progress), 3)


def main() -> int:
    """Takes every figure, and prints them."""
    figures = {
        **hot_path(),
        "evaluation, 21 streams": evaluation(21, 40),
        "evaluation, 10,000 streams": evaluation(10_000, 4),
        "processor, a pane of 200 streams": processor(2, 5),
        "backtest, 200,000 rows of 21 columns": backtest(),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
