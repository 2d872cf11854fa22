"""`otel-mlmon state`: checks, repairs, exports and copies the processor's stored state, or deletes a model of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_mlmon.processor.state.maintenance import CheckResult

HELP: Final = "check, repair, export or copy the processor's stored state, or forget a model"
EXIT_CODES: Final = (
    "Exit codes: 0 success; 1 a check found faults, or there is nothing to forget; 2 the state cannot be used, and why "
    "is on stderr."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon state`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add_action_parser(name: str, description: str) -> argparse.ArgumentParser:
        text = f"{description[0].upper()}{description[1:]}."
        action = actions.add_parser(name, help=description, description=text, epilog=EXIT_CODES)
        place = action.add_mutually_exclusive_group()
        place.add_argument("--config", metavar="FILE", help="the processor's configuration, whose storage.path it is")
        place.add_argument("--path", type=Path, metavar="DIRECTORY", help="the directory; by default that of --config")
        return action

    add_action_parser("check", "read everything, also while the processor runs, and list what cannot be used")
    add_action_parser("repair", "set aside what cannot be used; the processor must not run")
    add_action_parser("export", "print every record as a line of JSON, also while the processor runs")
    backup = add_action_parser("backup", "copy the state as it is at one moment, also while the processor runs")
    backup.add_argument("file", type=Path, metavar="FILE", help="the copy; must not exist")
    forget = add_action_parser("forget", "remove everything of a model; the processor must not run")
    forget.add_argument("model", metavar="MODEL", help="the name of the model; all its versions are forgotten")


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `otel-mlmon state` on the processor's stored state, and returns the exit code.

    Raises:
        ConfigurationError: The configuration is wrong.
        StoreError: The state cannot be used.
    """
    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.records import RECORD_KINDS
    from otel_mlmon.processor.state import maintenance
    from otel_mlmon.processor.state.sqlite import FILE_NAME, backup_database

    directory: Path = arguments.path or load_config(arguments.config).storage.path
    if arguments.action == "export":
        for line in maintenance.export_state(directory, RECORD_KINDS):
            print(line)
        return 0
    if arguments.action == "backup":
        backup_database(directory / FILE_NAME, arguments.file)
        print(f"{arguments.file}: a copy of {directory / FILE_NAME}. To use it, name it {FILE_NAME}.")
        return 0
    if arguments.action == "forget":
        removed = maintenance.forget_model(directory, RECORD_KINDS, arguments.model)
        print(f"{arguments.model}: {sum(removed.values())} records removed from {directory}.")
        copies = maintenance.list_copies(directory)
        if copies:
            print("These files may hold more of it, and are yours to delete:", *copies, sep="\n  ")
        return 0 if removed else 1
    is_check = arguments.action == "check"
    report = (maintenance.check_state if is_check else maintenance.repair_state)(directory, RECORD_KINDS)
    return _print_check_report(directory, report)


def _print_check_report(directory: Path, report: CheckResult) -> int:
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(report.counts.items())) or "none"
    print(f"{directory}: records: {counts}.")
    for fault in report.faults:
        print(f"  {fault}")
    print("Everything can be used." if not report.faults else f"{len(report.faults)} faults.")
    return 1 if report.faults else 0
