"""Counts the alerts of a model whose streams never move: `python -m benchmarks.quiet`; there should be none.

10,000 panes of 10 s, a little more than a day, of 50 streams: label, confidence, latency, errors, 23 numeric and 23
categorical features. The false-alarm budget is one in 30 days, so 0.04 alarms are expected of such a day at most.
"""

from __future__ import annotations

import argparse
import time
from typing import Final

import numpy as np

from otel_mlmon.testing import SimulatedProcessor

PANE_S: Final = 10.0
NUMERIC: Final = 23
CATEGORICAL: Final = 23
LABELS: Final = {"approve": 0.7, "review": 0.2, "decline": 0.1}
CALLS: Final = 200


def run_quiet_panes(panes: int, *, seed: int) -> tuple[list[str], int]:
    """Sends so many panes that never move; returns the messages of all alerts, and how many streams are ok."""
    rng = np.random.default_rng(seed)
    names, shares = list(LABELS), list(LABELS.values())
    with SimulatedProcessor({"windows": {"pane": f"{PANE_S}s"}}) as processor:
        for _ in range(panes):
            calls = int(rng.poisson(CALLS))
            numbers = rng.normal(size=(NUMERIC, calls))
            categories = rng.multinomial(calls, [0.5, 0.3, 0.15, 0.05], size=CATEGORICAL)
            failed = int(rng.binomial(calls, 0.002))
            processor.send_counts(
                "quiet",
                labels=dict(zip(names, rng.multinomial(calls, shares).tolist(), strict=True)),
                confidences=rng.beta(8, 2, calls).tolist(),
                durations_s=rng.lognormal(-3.5, 0.4, calls - failed).tolist(),
                failed_durations_s=[0.01] * failed,
                features={
                    **{f"number_{index}": values.tolist() for index, values in enumerate(numbers)},
                    **{
                        f"category_{index}": dict(zip("abcd", counts.tolist(), strict=True))
                        for index, counts in enumerate(categories)
                    },
                },
            )
            processor.advance(PANE_S)
        streams = processor.document()["models"]["quiet"]["streams"]
        return processor.messages, sum(stream["state"] == "ok" for stream in streams)


def main() -> int:
    """Runs and prints the figures; returns 1 if anything alerted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began_s = time.monotonic()
    messages, streams = run_quiet_panes(arguments.panes, seed=arguments.seed)
    print(*messages, sep="\n\n")
    print(
        f"{arguments.panes} panes, {streams} streams that are ok, {len(messages)} alerts, "
        f"{time.monotonic() - began_s:.0f} s (seed {arguments.seed})"
    )
    return int(bool(messages))


if __name__ == "__main__":
    raise SystemExit(main())
