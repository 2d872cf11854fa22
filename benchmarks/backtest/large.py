"""`python -m benchmarks.backtest.large`: a backtest of Parquet that is larger than memory should be, beside DuckDB.

Method: ten files of nine normal columns and one of four classes are written to a temporary folder. Each figure is one
run in a process of its own: the whole backtest (windows of a hundredth of the rows, a reference of 100,000 rows), its
largest resident memory, and DuckDB alone, with the same limit of memory, reading the same columns and grouping each by
window and by the bins of a reference, ten equal ones.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILES = 10
NUMBERS = 9
LIMIT = "400MB"
EDGES = (-1.28, -0.84, -0.52, -0.25, 0.0, 0.25, 0.52, 0.84, 1.28)


def write_tables(folder: Path, rows: int) -> None:
    """Writes the reference and the data."""
    import duckdb

    normal = "sqrt(-2 * ln(1 - random())) * cos(6.283185307 * random())"
    columns = ", ".join(f"{normal} AS f{number}" for number in range(NUMBERS))
    query = f"SELECT {columns}, floor(random() * 4)::INT AS class FROM range({{rows}})"
    connection = duckdb.connect(config={"memory_limit": LIMIT})
    connection.execute(f"COPY ({query.format(rows=100_000)}) TO '{folder / 'reference.parquet'}'")
    (folder / "data").mkdir()
    for number in range(FILES):
        connection.execute(f"COPY ({query.format(rows=rows // FILES)}) TO '{folder / 'data' / f'{number}.parquet'}'")


def run_backtest(folder: Path, rows: int) -> None:
    """Runs the backtest."""
    import otel_mlmon.backtest

    result = otel_mlmon.backtest.run(folder / "reference.parquet", folder / "data", window=rows // 100)
    assert {stream.state for stream in result.report.judged} == {"ok"}, result


def group_by_duckdb(folder: Path, rows: int) -> None:
    """Reads and groups by DuckDB alone, a file at a time, as the backtest does."""
    import duckdb

    connection = duckdb.connect(config={"memory_limit": LIMIT})
    cases = " ".join(f"WHEN {{0}} <= {edge} THEN {code}" for code, edge in enumerate(EDGES))
    columns = [*(f"CASE {cases} ELSE 9 END".format(f"f{number}") for number in range(NUMBERS)), "class"]
    for file in sorted((folder / "data").iterdir()):
        counts = ", ".join(f"histogram({column})" for column in columns)
        connection.execute(
            f"SELECT file_row_number // {rows // 100}, {counts} "
            f"FROM read_parquet('{file}', file_row_number = true) GROUP BY 1"
        ).fetchall()


def measure(part: Callable[[Path, int], None], folder: Path, rows: int) -> tuple[float, float]:
    """Seconds, and the largest resident memory in MB, of a part in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    process = context.Process(target=_run, args=(part, folder, rows, queue))
    process.start()
    figures: tuple[float, float] = queue.get()
    process.join()
    return figures


def _run(part: Callable[[Path, int], None], folder: Path, rows: int, queue: Any) -> None:
    begin = time.perf_counter()
    part(folder, rows)
    queue.put((time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> int:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.backtest.large", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="backtest-"))
    try:
        write_tables(folder, arguments.rows)
        duckdb_s, duckdb_mb = measure(group_by_duckdb, folder, arguments.rows)
        whole_s, whole_mb = measure(run_backtest, folder, arguments.rows)
    finally:
        shutil.rmtree(folder)
    assert __doc__ is not None
    text = f"""# What a large backtest costs

Written by `python -m benchmarks.backtest.large`. Trust the ratios, not the digits.

| {arguments.rows:,} rows × {NUMBERS + 1} columns | s | largest resident memory, MB |
|---|--:|--:|
| DuckDB alone, reading and grouping | {duckdb_s:.1f} | {duckdb_mb:.0f} |
| the whole backtest | {whole_s:.1f} | {whole_mb:.0f} |

{__doc__.partition("Method: ")[2].strip().join(("**Method.** ", ""))}
"""
    print(text)
    if not arguments.dry_run:
        (Path(__file__).parent / "LARGE.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
