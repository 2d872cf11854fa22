"""`otel-mlmon processor`: run the processor until it is told to stop.

Exit codes: 0 stopped in order, 1 stopped with something not kept or told in time, 2 it could not start.
"""

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

NAME: Final = "processor"
HELP: Final = "receive prediction telemetry over OTLP, find drift, and tell"

SHUTDOWN_S: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML; without it every key is at its default")
    parser.add_argument(
        "--ready-json", action="store_true", help="print one line of JSON with the bound addresses when ready"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT.

    Raises:
        MlmonError: The configuration, the state or an address cannot be used.
    """
    from otel_mlmon.processor.config.load import load_config
    from otel_mlmon.processor.service import Service

    config = load_config(arguments.config, os.environ)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a request, with the webhook's address in it
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    service = Service(config)
    addresses = asdict(service.start())
    where = ", ".join(f"{name} on {address}" for name, address in addresses.items() if address)
    logging.getLogger("otel_mlmon.processor").info("Listening: %s.", where)
    if arguments.ready_json:
        print(json.dumps({"event": "ready", **addresses}), flush=True)
    stopping.wait()
    return 0 if service.shutdown(SHUTDOWN_S) else 1
