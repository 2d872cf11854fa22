"""The command line `otel-mlmon`, with one module for each command.

Exit codes: 0 success; 1 the command ran, and its answer is negative (an alarm, a failed demo, an incomplete shutdown);
2 the arguments, a file or the installation cannot be used. A command is a module with `HELP`, `EXIT_CODES`,
`add_arguments(parser)` and `run_command(arguments) -> int`. It is imported when it is called, so that no command
pays for what another needs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast

from otel_mlmon.errors import ConfigurationError, DependencyMissingError, MlmonError
from otel_mlmon.version import __version__

COMMANDS: Final[Mapping[str, str]] = {
    "demo": "otel_mlmon.cli.demo",
    "backtest": "otel_mlmon.cli.backtest",
    "processor": "otel_mlmon.cli.processor",
    "doctor": "otel_mlmon.cli.doctor",
    "check-config": "otel_mlmon.cli.check_config",
    "reference": "otel_mlmon.cli.reference",
    "alert": "otel_mlmon.cli.alert",
    "state": "otel_mlmon.cli.state",
    "settings": "otel_mlmon.cli.settings",
}
"""The name and the module of each command, in the order of the help."""

USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, the convention of shells."""
BROKEN_PIPE: Final = 141
"""128 and the number of SIGPIPE."""


class CommandParser(argparse.ArgumentParser):
    """Parses the arguments of a command, and shows the usage of that command where one of them is unknown."""

    def parse_known_args(  # type: ignore[override]  # the stub's overloads differ in the type of the namespace alone
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parses the arguments; prints the usage and exits with 2 where any is unknown, which the caller cannot see."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


class CommandModule(Protocol):
    """The Protocol of the module of one command of `otel-mlmon`."""

    HELP: str
    """One line, for the list of commands and above the options."""
    EXIT_CODES: str
    """The sentence below the options."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's arguments on its parser."""

    def run_command(self, arguments: argparse.Namespace) -> int:
        """Runs the command with its parsed arguments, and returns the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command of `otel-mlmon` and returns the exit code; prints errors as a sentence, not a traceback.

    Args:
        argv: The arguments without the program's name; None for those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        namespace = _build_argument_parser(arguments).parse_args(arguments)
        code = _import_command_module(namespace.command).run_command(namespace)
        print(end="", flush=True)  # and not `sys.stdout.flush()`: it is None where it was closed before we began
    except ConfigurationError as error:
        print(*error.faults, sep="\n", file=sys.stderr)
    except DependencyMissingError as error:
        print(error, file=sys.stderr)
    except MlmonError as error:
        print(f"otel-mlmon: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "otel_mlmon":
            raise
        print(
            f'otel-mlmon: {error.name} is not installed: pip install "otel-mlmon[processor]"',
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _handle_output_error(error)
    else:
        return code
    return USAGE_ERROR


def _handle_output_error(error: OSError) -> int:
    """Returns the exit code after a system error such as a closed pipe, and prevents a second error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE  # the reader of the pipe, such as `head`, has ended
    print(f"otel-mlmon: {error}", file=sys.stderr)
    return USAGE_ERROR


def _build_argument_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Builds the argument parser of the command that is called, or of all commands for the help."""
    parser = CommandParser(
        prog="otel-mlmon",
        description="Monitors machine-learning models for drift with OpenTelemetry.",
        epilog="`otel-mlmon COMMAND --help` explains a command. Exit codes: 0 success, 1 the answer is negative, "
        "2 the arguments, a file or the installation cannot be used.",
    )
    parser.add_argument("--version", action="version", version=f"otel-mlmon {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = [name for name in COMMANDS if arguments[:1] == [name]]
    for name in called or COMMANDS:
        command = _import_command_module(name)
        description = f"{command.HELP[0].upper()}{command.HELP[1:]}."
        command.add_arguments(
            commands.add_parser(name, help=command.HELP, description=description, epilog=command.EXIT_CODES)
        )
    return parser


def _import_command_module(name: str) -> CommandModule:
    return cast("CommandModule", importlib.import_module(COMMANDS[name]))
