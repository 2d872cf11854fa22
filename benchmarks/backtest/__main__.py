"""`python -m benchmarks.backtest`: what a backtest costs, written to benchmarks/backtest/README.md.

Method: one process, a million rows of one class column (4 classes) and 20 normal features, in numpy arrays, windows
of 10,000 rows, against a reference of 10,000 rows. Every part in turn, round after round, so that a drifting machine
drifts for all of them; a figure is the median over rounds, its ratio that of the medians. Plain numpy is
`searchsorted` over ten edges and `bincount` of every window of every column, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.backtest.column_streams import build_column_streams
from otel_mlmon.backtest.columns import build_table_profile, choose_column_kinds
from otel_mlmon.backtest.counting import count_batches
from otel_mlmon.backtest.replay_table import build_count_plan, replay_table
from otel_mlmon.backtest.request import BacktestRequest, WindowLength
from otel_mlmon.table.read import read_table
from otel_mlmon.table.table import Table, ignore_progress, open_memory_table

README = Path(__file__).parent / "README.md"
WINDOW = 10_000
FEATURES = 20


def table_of(rows: int, seed: int) -> Table:
    """One class column and the features."""
    return open_memory_table(arrays_of(rows, seed), "memory")


def arrays_of(rows: int, seed: int) -> dict[str, NDArray[Any]]:
    """The same as arrays."""
    generator = np.random.default_rng(seed)
    columns: dict[str, NDArray[Any]] = {"class": generator.choice(4, size=rows, p=[0.4, 0.3, 0.2, 0.1])}
    for number in range(FEATURES):
        columns[f"f{number}"] = generator.normal(size=rows)
    return columns


def parts_of(rows: int, folder: Path) -> Mapping[str, Callable[[], object]]:
    """What is measured, by name."""
    reference, data = table_of(WINDOW, 1), table_of(rows, 2)
    choices = choose_column_kinds(reference, {}, timestamp=None)
    profile = build_table_profile(reference, choices)
    request = BacktestRequest(reference="ref", data="data", window=WindowLength(rows=WINDOW))
    values = [array.astype(np.float64) for array in arrays_of(rows, 2).values()]
    edges = np.linspace(-2.0, 2.0, 10)
    path = folder / "rows.csv"
    np.savetxt(path, np.column_stack([column[:50_000] for column in values[:10]]), delimiter=",", comments="",
               header=",".join("abcdefghij"), fmt="%.6g")  # fmt: skip

    def plain() -> None:
        for column in values:
            for start in range(0, rows, WINDOW):
                np.bincount(np.searchsorted(edges, column[start : start + WINDOW]), minlength=11)

    def counting() -> None:
        plan = build_count_plan(request, data, build_column_streams(data, choices, profile))
        count_batches(plan, data.scan(plan.column_names))

    def reading() -> None:
        table = read_table(str(path))
        for _ in table.scan(list(table.columns)):
            pass

    return {
        "plain numpy: searchsorted and bincount": plain,
        "counting over the reference's bins": counting,
        "the whole: counting, evidence, alerts, report": lambda: replay_table(
            request, data, profile, choices, ignore_progress
        ),
        "the reference's profile of 10,000 rows": lambda: build_table_profile(reference, choices),
        "reading a CSV of 50,000 rows and 10 columns": reading,
    }


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.backtest", description="What a backtest costs.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = parts_of(arguments.rows, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(arguments.rounds):
            for name, part in parts.items():
                start_s = time.perf_counter()
                part()
                seconds[name].append(time.perf_counter() - start_s)
    medians = {name: statistics.median(measured) for name, measured in seconds.items()}
    unit_s = next(iter(medians.values()))
    assert __doc__ is not None
    text = "\n".join(
        [
            "# What a backtest costs",
            "",
            "Written by `python -m benchmarks.backtest`. Trust the ratios, not the digits.",
            "",
            "| part | median, s | least, s | of plain numpy |",
            "|---|--:|--:|--:|",
            *(
                f"| {name} | {median:.3f} | {min(seconds[name]):.3f} | {median / unit_s:.2f} |"
                for name, median in medians.items()
            ),
            "",
            __doc__.partition("Method: ")[2].strip().join(("**Method.** ", "")),
            "",
            f"{arguments.rounds} rounds, {arguments.rows:,} rows; Python {platform.python_version()}, numpy "
            f"{np.__version__}, {os.cpu_count()} cores shared with others.",
            "",
        ]
    )
    print(text)
    if not arguments.dry_run:
        README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
