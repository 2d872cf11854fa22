"""`otel-mlmon check-config`: whether a configuration is right, and what is wrong with it."""

from __future__ import annotations

import argparse
from typing import Final

HELP: Final = "check the processor's configuration, or print the defaults"
EXIT_CODES: Final = "Exit codes: 0 the configuration can be used; 2 it cannot, and every fault is on stderr."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--config", metavar="FILE", help="the file to check; without it the defaults are")
    what.add_argument(
        "--print-defaults", action="store_true", help="print a commented file with every key at its default"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check or print.

    Raises:
        ConfigurationError: The file is wrong; its faults name file, line and key.
    """
    from otel_mlmon.processor import config

    if arguments.print_defaults:
        print(config.default_yaml(), end="")
        return 0
    loaded = config.load(arguments.config)
    notifiers = ", ".join(next(iter(entry.model_dump())) for entry in loaded.alerts.notify) or "nobody"
    models = ", ".join(loaded.models) or "*"
    print(f"{arguments.config or 'the defaults'}: right. Models: {models}. Told: {notifiers}.")
    return 0
