"""`make compare BASE=<revision>`: what a change costs, beside another revision, in interleaved pairs.

Method: for each pair the figures of both revisions are taken one after the other, each in a process of its own, the
order changing from pair to pair, so that a drifting machine drifts for both. The ratio of a figure is that of its pair;
told are the median ratio over the pairs and its 95 % interval (bootstrap of the median, 10,000 draws, seed 0).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from otel_mlmon.types import Floats

ROOT: Final = Path(__file__).resolve().parents[1]
FIGURES: Final = Path("benchmarks") / "figures.py"
LIMIT: Final = 1.10
"""A ratio whose interval reaches this is a cost that the change has to answer for."""


def figures_of(checkout: Path) -> dict[str, float]:
    """Measures the figures of one revision: a cost by name, smaller is better.

    Raises:
        CalledProcessError: They could not be taken.
    """
    run = subprocess.run(
        [sys.executable, str(FIGURES)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "ORT_DISABLE_TELEMETRY": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {str(name): float(cost) for name, cost in json.loads(run.stdout.splitlines()[-1]).items()}


def interval(ratios: Floats) -> tuple[float, float, float]:
    """Returns the median of ratios, shape (n,), and its 95 % interval."""
    draws = np.random.default_rng(0).choice(ratios, size=(10_000, ratios.size))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def main() -> int:
    """Prints a line a figure; ends with 1 where an interval reaches `LIMIT`."""
    parser = argparse.ArgumentParser(prog="benchmarks.compare", description="What a change costs, in pairs.")
    parser.add_argument("base", help="the revision to compare with")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--figures", type=Path, help=f"what takes the figures there, if it has no {FIGURES} of its own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", base, arguments.base], cwd=ROOT, check=True)
        try:
            if arguments.figures is not None:
                shutil.copy2(arguments.figures, base / FIGURES)
            pairs = []
            for number in range(arguments.pairs):
                order = (ROOT, base) if number % 2 else (base, ROOT)
                costs = {checkout: figures_of(checkout) for checkout in order}
                pairs.append(
                    {name: costs[ROOT][name] / costs[base][name] for name in costs[base] if name in costs[ROOT]}
                )
                ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in pairs[-1].items())
                print(f"pair {number + 1} of {arguments.pairs}: {ratios}", file=sys.stderr)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", base], cwd=ROOT, check=True)
    is_within = True
    print(f"| figure | ratio to {arguments.base} | 95 % interval |\n|---|--:|--:|")
    for name in pairs[0]:
        median, low, high = interval(np.array([pair[name] for pair in pairs]))
        is_within &= high < LIMIT
        print(f"| {name} | {median:.3f} | {low:.3f} to {high:.3f} |")
    return 0 if is_within else 1


if __name__ == "__main__":
    raise SystemExit(main())
