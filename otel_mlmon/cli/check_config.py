"""`otel-mlmon check-config`: checks the processor's configuration file, or prints all default values.

Exit code 0 if the file is valid; 2 if it is not, as the processor would exit with it.
"""

from __future__ import annotations

import argparse
from typing import Final

HELP: Final = "check the processor's configuration, or print the defaults"
EXIT_CODES: Final = "Exit codes: 0 the configuration can be used; 2 it cannot, and every fault is on stderr."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon check-config`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--config", metavar="FILE", help="the file to check; by default the defaults")
    group.add_argument(
        "--print-defaults", action="store_true", help="print a commented file with every key at its default"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `otel-mlmon check-config`: checks the configuration file or prints the defaults; returns the exit code.

    Raises:
        ConfigurationError: The file is wrong; its faults name file, line and key.
    """
    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.config.render import render_default_yaml

    if arguments.print_defaults:
        print(render_default_yaml(), end="")
        return 0
    config = load_config(arguments.config)
    notifiers = ", ".join(entry.name for entry in config.alerts.notify) or "none"
    models = ", ".join(config.models) or "*"
    print(f"{arguments.config or 'the defaults'}: valid. Models: {models}. Notifiers: {notifiers}.")
    return 0
