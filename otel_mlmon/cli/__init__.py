"""The command line, `otel-mlmon`: one file a command.

In: arguments. Out: an exit code: 0 it is done, or the answer is yes; 1 the answer is no; 2 it was called or
configured wrongly, or cannot run here. A command is a module with `NAME`, `HELP`, `add_arguments(parser)` and
`run(arguments) -> int`; it is imported when it is called, so none pays for what another needs.
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
    "check-config": "otel_mlmon.cli.check_config",
    "reference": "otel_mlmon.cli.reference",
    "settings": "otel_mlmon.cli.settings",
}
"""Name and module of each command, in the order of the help."""

OK: Final = 0
NO: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""
BROKEN_PIPE: Final = 141
"""128 and the number of SIGPIPE, likewise."""


class Command(Protocol):
    """What a command's module has."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what we, or the system, refuse is a sentence on stderr and never a traceback.

    Args:
        argv: Without the program's name; None is the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(words).parse_args(words)
        code = _command(arguments.command).run(arguments)
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
        return _without_output(error)
    else:
        return code
    return WRONG


def _without_output(error: OSError) -> int:
    """The exit code where nothing more can be written, or the system refused something else."""
    # The interpreter's own flush at the end must not fail on it again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE  # whoever read us, such as `head`, has enough
    print(f"otel-mlmon: {error}", file=sys.stderr)
    return WRONG


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of the command that is called; of all of them when help is wanted, or it is none of them."""
    parser = argparse.ArgumentParser(prog="otel-mlmon", description="Watch models for drift over OpenTelemetry.")
    parser.add_argument("--version", action="version", version=f"otel-mlmon {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    called = [name for name in COMMANDS if words[:1] == [name]]
    for name in called or COMMANDS:
        command = _command(name)
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


def _command(name: str) -> Command:
    return cast("Command", importlib.import_module(COMMANDS[name]))
