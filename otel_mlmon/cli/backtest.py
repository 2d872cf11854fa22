"""`otel-mlmon backtest`: reports whether existing data would have raised a drift alarm, when, and in which columns."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_mlmon.backtest.columns import ColumnKind
    from otel_mlmon.backtest.request import BacktestRequest

HELP: Final = "report whether existing data would have raised an alarm, when, and about which columns"
EXIT_CODES: Final = (
    "Exit codes: 0 the data was judged; 1 there was an alarm, with --fail-on-alarm only; 2 a file or an argument "
    "cannot be used; 3 a column of --require could not be judged, or with --fail-on-alarm a column of the reference "
    "is not in the data, or nothing could be judged."
)
UNJUDGED: Final = 3
ENGINES: Final = ("local", "spark")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon backtest`."""
    add = parser.add_argument
    table = "CSV, Parquet or JSON lines: a file, a folder, or a quoted pattern such as '2026-*.csv.gz'"
    add("--reference", required=True, metavar="TABLE", help=f"{table}; or a reference profile (JSON)")
    add(
        "--data", required=True, metavar="TABLE",
        help="another table; or OTLP metrics as the Collector's file exporter writes them (JSON)",
    )  # fmt: skip
    add(
        "--window", metavar="N|TIME",
        help="length of a window: a number of rows, such as 1000 (default), or a time, such as 1h, which needs "
        "--timestamp",
    )  # fmt: skip
    add(
        "--columns", action="append", default=[], metavar="NAME:KIND,…",
        help="kinds of columns, where the inferred ones are wrong: numeric, category, ignore, or for outputs of the "
        "model: label, confidence, value",
    )  # fmt: skip
    add("--timestamp", metavar="COLUMN", help="the column with the time of each row; rows are sorted by it")
    add(
        "--tolerance", metavar="SHARE",
        help="share of the values that may change without being drift (total variation), such as 5%% (default: as in "
        "the processor)",
    )  # fmt: skip
    add(
        "--false-alarms", metavar="RATE",
        help="accepted false alarms over all columns: `1 per 30d`, or one in a number of windows, such as 10000",
    )  # fmt: skip
    add("--json", action="store_true", help="print the report as JSON")
    add("--html", type=Path, metavar="FILE", help="write the report as one HTML page")
    add(
        "--fail-on-alarm", action="store_true",
        help="exit with code 1 if there was an alarm, and with 3 if a column could not be judged",
    )  # fmt: skip
    add(
        "--require", action="append", default=[], metavar="A,B,…",
        help="columns that have to be judged: exit with code 3 if one could not be",
    )  # fmt: skip
    add(
        "--min-accuracy", metavar="SHARE",
        help="alarm where the accuracy estimated from confidences is below, such as 90%%; the reference must be a "
        "profile with labelled data",
    )  # fmt: skip
    add("--accuracy-drop", metavar="SHARE", help="the same where it is so much below that of the labelled data")
    add("--encoding", choices=("utf-8", "utf-16", "latin-1"), help="of CSV without a byte order mark (default: utf-8)")
    add("--decimal", metavar="CHAR", help="what separates fractions in CSV, . or , (default: seen from the first rows)")
    add(
        "--engine", choices=ENGINES, default="local",
        help="what reads the data: this process, or Spark as its configuration has it, which needs a window of time",
    )  # fmt: skip


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `otel-mlmon backtest`: judges the data, prints the report, and returns the exit code.

    Raises:
        MlmonError: A file or an argument cannot be used.
    """
    from rich.console import Console

    from otel_mlmon.backtest.api import run_backtest
    from otel_mlmon.backtest.terminal import print_report, show_progress

    request = parse_backtest_request(arguments)
    with show_progress(Console(stderr=True)) as progress:
        if arguments.engine == "spark":
            from otel_mlmon.backtest.spark import run_on_spark

            report = run_on_spark(request, progress)
        else:
            report = run_backtest(request, progress)
    if arguments.html is not None:
        from otel_mlmon.backtest.page import render_page

        _write_html_page(arguments.html, render_page(report))
    if arguments.json:
        print(json.dumps(report.to_dict(), allow_nan=False, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        # Printed by ourselves: rich would end the program with 1, an alarm, where the reader of a pipe has ended.
        with console.capture() as capture:
            print_report(report, console)
        print(capture.get(), end="")
    code = report.exit_code(is_gate=arguments.fail_on_alarm)
    if code == UNJUDGED:
        print("Not judged:", *report.unjudged, sep="\n", file=sys.stderr)
    return code


def parse_backtest_request(arguments: argparse.Namespace) -> BacktestRequest:
    """Builds the request of a backtest from the arguments of the command line.

    Raises:
        ConfigurationError: An argument cannot be used.
    """
    from otel_mlmon.backtest import request
    from otel_mlmon.backtest.accuracy import parse_accuracy_bounds

    return request.BacktestRequest(
        reference=arguments.reference,
        data=arguments.data,
        window=request.parse_window_length(arguments.window) if arguments.window is not None else None,
        columns=parse_column_kinds(arguments.columns),
        timestamp=arguments.timestamp,
        tolerance=request.parse_tolerance(arguments.tolerance) if arguments.tolerance is not None else None,
        budget=request.parse_false_alarm_budget(arguments.false_alarms) if arguments.false_alarms is not None else None,
        required=tuple(name for value in arguments.require for name in value.split(",") if name),
        accuracy=parse_accuracy_bounds(arguments.min_accuracy, arguments.accuracy_drop),
        encoding=arguments.encoding,
        decimal=request.parse_decimal_separator(arguments.decimal),
    )


def parse_column_kinds(values: list[str]) -> dict[str, ColumnKind]:
    """Parses the kinds of columns that `--columns NAME:KIND,NAME:KIND` gives; it may be given several times.

    Raises:
        ConfigurationError: A kind is unknown or missing; names all such entries.
    """
    from otel_mlmon.backtest.columns import COLUMN_KINDS
    from otel_mlmon.errors import ConfigurationError

    columns: dict[str, ColumnKind] = {}
    faults: list[str] = []
    for entry in ",".join(values).split(",") if values else []:
        name, colon, kind = entry.strip().rpartition(":")
        if not colon or kind not in COLUMN_KINDS:
            faults.append(f"--columns: {entry.strip()!r} is not NAME:KIND with a kind of {', '.join(COLUMN_KINDS)}")
        else:
            columns[name] = kind
    if faults:
        raise ConfigurationError(*faults)
    return columns


def _write_html_page(path: Path, page: str) -> None:
    from otel_mlmon.errors import ConfigurationError

    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--html: {path}: {error.strerror}") from error
