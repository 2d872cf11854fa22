"""`otel-mlmon settings`: lists the value of each option of `instrument()` in this environment, and its source."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from otel_mlmon.instrumentation.settings import InstrumentationSettings, resolve_settings
from otel_mlmon.options import options_of

HELP = "show every option of instrument(), its value in this environment, and the source of the value"
HIDDEN = "(set, not shown)"
EXIT_CODES = "Exit codes: 0 success; 2 a value in the environment cannot be used."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, by the name of the option")


def run(arguments: argparse.Namespace, *, settings_type: type[Any] = InstrumentationSettings) -> int:
    """Prints the table; returns 0."""
    settings, origins = resolve_settings(settings_type, {}, environ=os.environ)
    rows: dict[str, dict[str, object]] = {
        option.name: {
            "value": HIDDEN if option.is_secret and getattr(settings, option.name) else getattr(settings, option.name),
            "origin": origins[option.name],
            "variable": option.variable,
        }
        for option in options_of(settings_type)
    }
    if arguments.json:
        # JSON has no infinity.
        print(
            json.dumps(
                {name: {**row, "value": _replace_infinity(row["value"])} for name, row in rows.items()}, indent=2
            )
        )
        return 0
    widths = [
        max(len(str(cell)) for cell in column) for column in zip(*map(_format_row, rows, rows.values()), strict=True)
    ]
    for name, row in rows.items():
        print("  ".join(cell.ljust(width) for cell, width in zip(_format_row(name, row), widths, strict=True)).rstrip())
    return 0


def _format_row(name: str, row: dict[str, object]) -> tuple[str, str, str, str]:
    return name, repr(row["value"]), str(row["origin"]), str(row["variable"])


def _replace_infinity(value: object) -> object:
    return None if value == float("inf") else value
