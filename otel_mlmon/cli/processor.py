"""`otel-mlmon processor`: runs the processor until SIGTERM or SIGINT; SIGHUP reloads its configuration."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import queue
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_mlmon.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from otel_mlmon.processor.service import Service

HELP: Final = "receive prediction telemetry over OTLP, find drift, and send alerts"
EXIT_CODES: Final = (
    "Stops on SIGTERM or SIGINT; reads its configuration, tokens and certificates again on SIGHUP. "
    "Exit codes: 0 stopped in order; 1 stopped before everything was stored and sent; 2 could not start."
)

SHUTDOWN_S: Final = 10.0
RELOAD_AGAIN_S: Final = 5.0
"""The pause between attempts to load the state again after a reload that could not."""

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread keeps the interpreter where others wait, in seconds. The threads that decode would else hold up the
one that refuses: at Python's 5 ms each step of its event loop waits for the turns of all of them."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `otel-mlmon processor`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML (default: every key at its default)")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="lines on stderr: text, or one JSON object each"
    )
    parser.add_argument(
        "--ready-json", action="store_true", help="print one line of JSON with the addresses in use when ready"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Runs the processor until a signal ends it, and returns the exit code.

    Raises:
        MlmonError: The configuration, the state or an address cannot be used.
    """
    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.connections import raise_file_limit
    from otel_mlmon.processor.service import Service

    config = load_config(arguments.config, os.environ)
    raise_file_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _configure_logging(arguments.log_format)
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.put(number))
    service = Service(config)
    with pause_garbage_collector():
        addresses = asdict(service.start())
    listeners = ", ".join(f"{name} on {address}" for name, address in addresses.items() if address)
    logging.getLogger("otel_mlmon.processor").info("Listening: %s.", listeners)
    if arguments.ready_json:
        print(json.dumps({"event": "ready", **addresses}), flush=True)
    calm_garbage_collector()
    is_loaded = True
    while _wait_for_signal(signals, None if is_loaded else RELOAD_AGAIN_S) == signal.SIGHUP:
        is_loaded = _reload_configuration(service, arguments.config, is_loaded=is_loaded)
    return 0 if service.shutdown(SHUTDOWN_S) else 1


@contextmanager
def pause_garbage_collector() -> Iterator[None]:
    """Keeps Python's garbage collector from running while the stored state is loaded, all of which is kept.

    It would look at what is loaded again and again, which took up to half of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def calm_garbage_collector() -> None:
    """Makes Python's garbage collector run seldom, since a processor keeps most objects and makes few cycles.

    By default it looks at all that was made of late after 700 new objects, seven points, and at everything that is
    kept again and again, which took a seventh of the time. Nothing else runs meanwhile: what is of middle age is looked
    at while it is no more than a quarter of a million objects, which takes a tenth of a second, and all of it seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 4, 200)


def _wait_for_signal(signals: queue.SimpleQueue[int], timeout_s: float | None) -> int:
    """Returns the next signal that the process receives; SIGHUP if none comes in time."""
    try:
        return signals.get(timeout=timeout_s)
    except queue.Empty:
        return signal.SIGHUP


def _reload_configuration(service: Service, path: Path | None, *, is_loaded: bool) -> bool:
    """Reloads the configuration file, or keeps the old one if that is broken; returns whether state is loaded."""
    from otel_mlmon.processor.config.load import load_config

    try:
        with pause_garbage_collector():
            postponed = service.reload(load_config(path, os.environ))
    except ConfigurationError as error:
        _LOG.error("The configuration was not reloaded, and the old one stays in use:\n%s", "\n".join(error.faults))
        return is_loaded
    except StoreError as error:
        _LOG.critical(
            "The state could not be loaded again, and nothing is accepted until it is, which is tried every %g s; "
            "look at storage.path: %s",
            RELOAD_AGAIN_S,
            error,
        )
        return False
    else:
        _LOG.warning("The configuration was reloaded.")
        if postponed:
            _LOG.warning("These keys keep their value until the next start: %s.", ", ".join(postponed))
        return True


def _configure_logging(log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLogFormatter() if log_format == "json" else _TextLogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request with the webhook's address


class _TextLogFormatter(logging.Formatter):
    """Formats a log record as text, in which nothing that a sender named looks like a line of the processor's own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's
        lines = super().formatMessage(record).split("\n")
        return "\n    ".join("".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in lines)


class _JsonLogFormatter(logging.Formatter):
    """Formats a log record as one line of JSON, with the field names of OpenTelemetry's log data model."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
        line = {
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "severity_text": record.levelname,
            "scope": record.name,
            "body": record.getMessage(),
        }
        if record.exc_info:
            line["exception.stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(line)
