"""`otel-mlmon backtest`: would this data have raised an alarm, when, and about what?

Exit code 0 when it is judged, whatever came of it; 1 with `--fail-on-alarm` if there was an alarm; 2 if a file or
an argument is wrong.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_mlmon.backtest.kinds import Kind
    from otel_mlmon.backtest.request import Request

NAME: Final = "backtest"
HELP: Final = "tell whether data that is already there would have raised an alarm, when, and about what"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("--reference", type=Path, required=True, metavar="FILE", help="CSV, Parquet, or a reference profile (JSON)")
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV, Parquet, or OTLP as the Collector's file exporter writes it (JSON)",
    )
    add(
        "--window",
        metavar="N|TIME",
        help="rows, such as 1000 (default), or a time, such as 1h, which needs --timestamp",
    )
    add(
        "--columns", action="append", default=[], metavar="NAME:KIND,…",
        help="what a column is: numeric, category, ignore, or what the model said: label, confidence, value",
    )  # fmt: skip
    add("--timestamp", metavar="COLUMN", help="the column that says when; rows are put in its order")
    add(
        "--tolerance", metavar="SHARE", help="total variation that is forgiven, such as 5%% (default: as the processor)"
    )
    add(
        "--false-alarms",
        metavar="RATE",
        help="accepted over all streams: `1 per 30d`, or one in so many windows, such as 10000",
    )
    add("--json", action="store_true", help="print the report as JSON")
    add("--html", type=Path, metavar="FILE", help="write the report as one HTML page")
    add("--fail-on-alarm", action="store_true", help="exit with 1 if there was an alarm")


def run(arguments: argparse.Namespace) -> int:
    """Judge, and say so.

    Raises:
        MlmonError: A file or an argument is wrong.
    """
    from rich.console import Console

    from otel_mlmon.backtest import terminal
    from otel_mlmon.backtest.page import page
    from otel_mlmon.backtest.run import backtest
    from otel_mlmon.errors import ConfigurationError

    request = request_of(arguments)
    with terminal.progress_bar(Console(stderr=True)) as progress:
        report = backtest(request, progress)
    if arguments.html is not None:
        try:
            arguments.html.write_text(page(report), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"--html: {arguments.html}: {error.strerror}") from error
    if arguments.json:
        print(json.dumps(report.to_dict(), allow_nan=False, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        # Printed by ourselves: rich would end the program with 1, an alarm, where the reader of a pipe has enough.
        with console.capture() as shown:
            terminal.show(report, console)
        print(shown.get(), end="")
    return 1 if arguments.fail_on_alarm and report.alarmed else 0


def request_of(arguments: argparse.Namespace) -> Request:
    """What was asked.

    Raises:
        ConfigurationError: An argument is not what it should be; all such faults.
    """
    from otel_mlmon.backtest import cutting
    from otel_mlmon.backtest.request import Request
    from otel_mlmon.errors import ConfigurationError
    from otel_mlmon.processor.config import units

    tolerance = None
    if arguments.tolerance is not None:
        try:
            tolerance = units.parse_ratio(arguments.tolerance)
        except ValueError as error:
            raise ConfigurationError(f"--tolerance: {arguments.tolerance!r} {error}") from error
        if tolerance >= 1:
            raise ConfigurationError("--tolerance: must be below 100%, or nothing could ever be found")
    return Request(
        reference=arguments.reference,
        data=arguments.data,
        window=cutting.read_length(arguments.window) if arguments.window is not None else None,
        columns=columns_of(arguments.columns),
        timestamp=arguments.timestamp,
        tolerance=tolerance,
        budget=cutting.read_budget(arguments.false_alarms) if arguments.false_alarms is not None else None,
    )


def columns_of(given: list[str]) -> dict[str, Kind]:
    """`name:kind,other:kind`, once or several times. A name may hold colons; one with a comma cannot be given.

    Raises:
        ConfigurationError: A kind is not one, or there is none.
    """
    from otel_mlmon.backtest.kinds import KINDS
    from otel_mlmon.errors import ConfigurationError

    columns: dict[str, Kind] = {}
    faults: list[str] = []
    for entry in ",".join(given).split(",") if given else []:
        name, colon, kind = entry.strip().rpartition(":")
        if not colon or kind not in KINDS:
            faults.append(f"--columns: {entry.strip()!r} is not NAME:KIND with a kind of {', '.join(KINDS)}")
        else:
            columns[name] = kind
    if faults:
        raise ConfigurationError(*faults)
    return columns
