"""Long runs against the processor: `make soak`, or one part of it: `python -m benchmarks.soak kills --times 100`.

`overload` offers twice what the processor takes, over HTTP or gRPC; `mutations` sends damaged requests in every
encoding; the others are faults (`soak_faults.py`). `--progress FILE` keeps how far mutations came, so that another run
goes on from there. Each part ends with 1 where a promise of docs/operating.md is broken.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import random
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

import zstandard
from google.protobuf import json_format

from benchmarks import soak_faults
from benchmarks.soak_overload import SENDERS, overload, resident_bytes
from otel_mlmon.errors import MalformedError
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.codec import BodyFormat
from otel_mlmon.processor.receive.data_point import Rejections, TelemetryItem
from otel_mlmon.processor.receive.inflate import BodyTooLargeError, inflate_body
from tests.support.otlp_requests import counter, exponential, histogram, request

CHUNK: Final = 10_000
"""Mutations between two notes of how far they came."""


def mutations(*, count: int, seed: int = 0, progress: Path | None = None) -> list[str]:
    """Decodes damaged requests in every encoding; returns the promises that were not kept.

    A damaged request is malformed, or is counted whole: never a fault of ours, never an uncounted point.

    Args:
        count: How many of each encoding.
        seed: Each chunk of an encoding has a generator of its own, so that a run can go on from any.
        progress: A file that says how far earlier runs came; None to begin anew.
    """
    known: dict[str, Any] = json.loads(progress.read_text()) if progress is not None and progress.exists() else {}
    faults: list[str] = []
    for name, (body_format, encoding, body) in encodings().items():
        key = f"{name} {seed}"
        entry = known.setdefault(key, {"done": 0, "seconds": 0.0, "outcomes": {}})
        while entry["done"] < count:
            size = min(CHUNK, count - entry["done"])
            begins_s = time.monotonic()
            outcomes = Counter(entry["outcomes"])
            outcomes.update(mutate_many(body, body_format, encoding, f"{key} {entry['done']}", size))
            entry["done"] += size
            entry["seconds"] += time.monotonic() - begins_s
            entry["outcomes"] = dict(outcomes)
            if progress is not None:
                progress.write_text(json.dumps(known, indent=1))
        rate = entry["done"] / max(entry["seconds"], 1e-9)
        print(f"mutations of {name}: {entry['outcomes']} of {entry['done']:,}, {rate:,.0f} a second", flush=True)
        if entry["outcomes"].get("fault", 0):
            faults.append(f"{name}: {entry['outcomes']['fault']} faults")
    return faults


def encodings() -> Mapping[str, tuple[BodyFormat, str, bytes]]:
    """Returns a request with every kind of point in every encoding, by name."""
    parts = (
        request("ml.predictions", "sum", counter(3), points=2),
        request("ml.inference.duration", "histogram", histogram([0.1, 1.0], [1, 2, 3], sum=1.5)),
        request("ml.prediction.confidence", "exponential_histogram", exponential(3, (2, [1, 2]), (0, [1]), 4)),
    )
    plain = b"".join(part.SerializeToString() for part in parts)
    text = json.dumps(json_format.MessageToDict(parts[0], use_integers_for_enums=True)).encode()
    return {
        "protobuf": ("protobuf", "identity", plain),
        "json": ("json", "identity", text),
        "gzip": ("protobuf", "gzip", gzip.compress(plain)),
        "deflate": ("protobuf", "deflate", zlib.compress(plain)),
        "zstd": ("protobuf", "zstd", zstandard.compress(plain)),
    }


def mutate_many(body: bytes, body_format: BodyFormat, encoding: str, seed: str, count: int) -> Counter[str]:
    """Returns how many damaged requests ended in which way; what is left behind at the end is a fault."""
    choices = random.Random(seed)
    admission = RequestAdmission(_deliver)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        outcomes[consume(admission, mutate(body, choices), body_format, encoding)] += 1
    if admission.pending_bytes or admission.read_counts.dead_letters:
        outcomes["fault"] += 1
    return outcomes


def consume(admission: RequestAdmission, body: bytes, body_format: BodyFormat, encoding: str) -> str:
    """Returns the outcome of one request."""
    try:
        inflated = inflate_body(body, encoding, max_bytes=2**20)
        result = admission.consume_request("metrics", inflated, body_format=body_format)
    except (MalformedError, BodyTooLargeError):
        return "malformed"
    return "fault" if result.exception(30) is not None else "answered"


def mutate(body: bytes, choices: random.Random) -> bytes:
    """Flips, cuts, repeats or inserts a few bytes."""
    damaged = bytearray(body)
    for _ in range(choices.randint(1, 4)):
        place = choices.randrange(len(damaged)) if damaged else 0
        kind = choices.randrange(4)
        if kind == 0 and damaged:
            damaged[place] = choices.randrange(256)
        elif kind == 1:
            del damaged[place : place + choices.randint(1, 8)]
        elif kind == 2:
            damaged[place:place] = damaged[place : place + choices.randint(1, 32)]
        else:
            damaged[place:place] = choices.randbytes(choices.randint(1, 8))
    return bytes(damaged)


def _deliver(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
    done: Future[Rejections] = Future()
    done.set_result({})
    return done


def list_parts(options: argparse.Namespace) -> Mapping[str, Callable[[], list[str]]]:
    """The parts by name, at the size that the options say."""
    protocols = tuple(SENDERS) if options.protocol == "both" else (options.protocol,)
    times = options.times
    return {
        "overload": lambda: [
            fault for protocol in protocols for fault in overload(seconds=options.seconds or 60.0, protocol=protocol)
        ],
        "mutations": partial(mutations, count=options.count, progress=options.progress),
        "kills": partial(soak_faults.kills, count=times or 100),
        "full_disks": partial(soak_faults.full_disks, count=times or 10),
        "clocks": partial(soak_faults.clocks, count=times or 2_000),
        "backlog": partial(soak_faults.backlog, seconds=round(options.seconds or 86_400 / 4)),
        "stale_senders": partial(soak_faults.stale_senders, count=times or 1_000),
        "flat": partial(soak_faults.flat, seconds=options.seconds or 600.0, resident_bytes=resident_bytes),
    }


def main(arguments: list[str] | None = None) -> int:
    """Runs one part or all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", default="all", help="overload, mutations, kills, …; all by default")
    parser.add_argument("--seconds", type=float, help="how long load is offered, or how long a backlog is")
    parser.add_argument("--times", type=int, help="how often a fault is made")
    parser.add_argument("--protocol", choices=(*SENDERS, "both"), default="both")
    parser.add_argument("--count", type=int, default=1_000_000, help="mutations of each encoding")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="how far mutations came, to go on from there")
    options = parser.parse_args(arguments)
    logging.getLogger("otel_mlmon.receiver").setLevel(logging.ERROR)  # every chunk would say again what it rejects
    parts = list_parts(options)
    if options.part not in (*parts, "all"):
        parser.error(f"{options.part!r} is not one of {', '.join(parts)}, all")
    faults = [fault for name, run in parts.items() if options.part in (name, "all") for fault in run()]
    print(*faults or ["all promises held"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
