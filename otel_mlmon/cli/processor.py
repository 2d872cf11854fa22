"""`otel-mlmon processor`: runs the processor until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Final

HELP: Final = "receive prediction telemetry over OTLP, find drift, and send alerts"
EXIT_CODES: Final = (
    "Stops on SIGTERM or SIGINT. Exit codes: 0 stopped in order; 1 stopped before everything was stored and sent; "
    "2 could not start."
)

SHUTDOWN_S: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML (default: every key at its default)")
    parser.add_argument(
        "--ready-json", action="store_true", help="print one line of JSON with the addresses in use when ready"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the processor and returns the exit code.

    Raises:
        MlmonError: The configuration, the state or an address cannot be used.
    """
    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.service import Service

    config = load_config(arguments.config, os.environ)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request with the webhook's address
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    service = Service(config)
    addresses = asdict(service.start())
    listeners = ", ".join(f"{name} on {address}" for name, address in addresses.items() if address)
    logging.getLogger("otel_mlmon.processor").info("Listening: %s.", listeners)
    if arguments.ready_json:
        print(json.dumps({"event": "ready", **addresses}), flush=True)
    stopping.wait()
    return 0 if service.shutdown(SHUTDOWN_S) else 1
