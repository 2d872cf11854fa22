"""Counts alerts that should not be: `python -m benchmarks.alerts quiet` or `swing`.

`swing`: calls of which 3 % and 0.3 % are slow in turn, where 1 % may be: one alert whatever the period, and no more.
`quiet`: a model whose streams never move, 10,000 panes of 10 s, a little more than a day, of 50 streams: label,
confidence, latency, errors, 23 numeric and 23 categorical features. The false-alarm budget is one in 30 days, so 0.04
alarms are expected of such a day at most.
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
CALM_PANES: Final = 30
PERIODS_S: Final = (60, 120, 300, 600, 1200, 2400)


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


def run_swing(period_s: float, loud: float, *, panes: int, seed: int) -> list[str]:
    """Sends calls of which too many are slow for a share `loud` of each period; returns the states that were told."""
    rng = np.random.default_rng(seed)
    with SimulatedProcessor({"windows": {"pane": f"{PANE_S}s"}}) as processor:
        for pane in range(CALM_PANES + panes):
            time_s = (pane - CALM_PANES) * PANE_S
            is_loud = time_s >= 0 and time_s % period_s < loud * period_s
            slow = int(rng.binomial(CALLS, 0.03 if is_loud else 0.003))
            processor.send_counts("swing", durations_s=[0.01] * (CALLS - slow) + [0.5] * slow)
            processor.advance(PANE_S)
        return [alert.state.value for alert in processor.find_alerts(rule="latency")]


def main() -> int:
    """Runs and prints the figures; returns 1 if anything alerted that should not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=("quiet", "swing"))
    parser.add_argument("--panes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.subject == "swing":
        worst = 0
        for period_s in PERIODS_S:
            told = run_swing(
                period_s, 0.5, panes=min(arguments.panes, round(6 * period_s / PANE_S)), seed=arguments.seed
            )
            worst = max(worst, told.count("firing"))
            print(f"period {period_s} s: {told}", flush=True)
        return int(worst > 1)
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
