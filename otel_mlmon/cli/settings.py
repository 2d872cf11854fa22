"""`otel-mlmon settings`: lists the value of each option of `instrument()` in this environment, and its source."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from otel_mlmon.instrumentation.settings import InstrumentationSettings, resolve_settings
from otel_mlmon.options import options_of

NAME = "settings"
HELP = "show every setting of the application half, its value, and where it comes from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="as one JSON object by name")


def run(arguments: argparse.Namespace, *, settings_type: type[Any] = InstrumentationSettings) -> int:
    """Prints the table; returns 0."""
    settings, origins = resolve_settings(settings_type, {}, environ=os.environ)
    rows: dict[str, dict[str, object]] = {
        option.name: {
            "value": getattr(settings, option.name),
            "origin": origins[option.name],
            "variable": option.variable,
        }
        for option in options_of(settings_type)
    }
    if arguments.json:
        # JSON has no infinity.
        print(json.dumps({name: {**row, "value": _finite(row["value"])} for name, row in rows.items()}, indent=2))
        return 0
    widths = [max(len(str(cell)) for cell in column) for column in zip(*map(_cells, rows, rows.values()), strict=True)]
    for name, row in rows.items():
        print("  ".join(cell.ljust(width) for cell, width in zip(_cells(name, row), widths, strict=True)).rstrip())
    return 0


def _cells(name: str, row: dict[str, object]) -> tuple[str, str, str, str]:
    return name, repr(row["value"]), str(row["origin"]), str(row["variable"])


def _finite(value: object) -> object:
    return None if value == float("inf") else value
