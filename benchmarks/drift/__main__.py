"""`python -m benchmarks.drift`: how often the drift rules are wrong, and how soon they are right.

Every number is of simulated traffic with known truth, four classes {.4 .3 .2 .1} where nothing else is said, from a
fixed seed; the rules of others are computed from their formulas. Full mode writes benchmarks/drift/README.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.drift.peers import CACHE, peers
from benchmarks.drift.results import FILE, forget
from benchmarks.drift.tables import TABLES

README = Path(__file__).parent / "README.md"


def main() -> int:
    """Makes the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.drift", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the replicates; prints, writes nothing")
    parser.add_argument("--scale", type=float, metavar="F", help="so many of the replicates, such as 0.3; as --quick")
    parser.add_argument("--only", default="", metavar="WORD", help="tables whose title holds the word; writes nothing")
    parser.add_argument("--fresh", action="store_true", help=f"compute what {FILE} has from an earlier run, too")
    parser.add_argument("--seed", type=int, default=20_26)
    parser.add_argument(
        "--peers", action="store_true", help="also run the real libraries, each in an environment of its own"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="where those are made ($MLMON_PEERS)")
    arguments = parser.parse_args()
    scale = arguments.scale or (0.1 if arguments.quick else 1.0)
    if arguments.fresh:
        forget()
    start_s = time.monotonic()
    lines: list[str] = []
    for line in build_lines(arguments, scale):
        lines.append(line)
        print(line, flush=True)
    lines.append(
        f"Made by `python -m benchmarks.drift{' --peers' * arguments.peers}{f' --scale {scale:g}' * (scale < 1.0)}`, "
        f"seed {arguments.seed}, in {time.monotonic() - start_s:.0f} s; Python {platform.python_version()}, "
        f"{os.cpu_count()} cores shared with others."
    )
    print(lines[-1])
    if scale >= 1.0 and not arguments.only:
        README.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return 0


def build_lines(arguments: argparse.Namespace, scale: float) -> Iterator[str]:
    """Yields the lines of all tables that are asked for, each as soon as it is known."""
    yield from ("# Drift rules, measured", "", *__doc__.partition("\n\n")[2].strip().splitlines(), "")
    for title, table in TABLES.items():
        if arguments.only.lower() not in title.lower():
            continue
        print(f"{title} …", file=sys.stderr)
        yield from (f"## {title}", "")
        yield from table(arguments.seed, scale)
        yield ""
    if arguments.peers:
        yield from ("## The libraries themselves", "")
        yield from peers(arguments.cache, arguments.seed, scale)
        yield ""


if __name__ == "__main__":
    raise SystemExit(main())
