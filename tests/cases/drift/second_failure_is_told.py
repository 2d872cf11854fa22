"""One feature drifted for good in the second hour, and an alert says so. In the fourth hour another feature breaks.

The first alert still fires, since nobody trains a new model in two hours. The second failure is news: something must
be sent that names the second feature, as a new alert or as a new message of the one that fires. Otherwise one drift
that is accepted makes all others of the model invisible.

Default configuration, panes of ten seconds, 100 predictions each, six hours on a simulated clock; two runs, fixed
seeds.
"""

import numpy as np

from otel_mlmon.testing import SimulatedProcessor
from tests.cases import support

PANE_S, VALUES = 10, 100
BUCKETS = 10
FIRST_H, SECOND_H, END_H = 1, 3, 6


def tilted(amount: float) -> np.ndarray:
    """Shares of ten buckets, tilted to the upper ones."""
    weights = np.linspace(-1, 1, BUCKETS)
    shares = np.maximum(1 / BUCKETS + weights * amount * 2 / np.abs(weights).sum(), 0)
    normalised: np.ndarray = shares / shares.sum()
    return normalised


def run(seed: int) -> tuple[bool, bool, str | None]:
    """Whether the first and the second feature were told, and the second one's status at the end."""
    random = np.random.default_rng(seed)
    with SimulatedProcessor({"models": {"*": {"no_data": {"enabled": False}}}}) as processor:
        began, pane_ns = processor.now_ns, PANE_S * support.SECOND_NS
        for pane in range(END_H * 3600 // PANE_S):
            hour, start_ns = pane * PANE_S / 3600, began + pane * pane_ns
            end_ns = start_ns + pane_ns - 1
            request = support.MetricsRequest().predictions("a", VALUES, start_ns, end_ns, model="shop")
            amounts = {"f1": 0.25 if hour >= FIRST_H else 0, "f2": 0.45 if hour >= SECOND_H else 0, "f3": 0, "f4": 0}
            for name, amount in amounts.items():
                counts = random.multinomial(VALUES, tilted(amount)).tolist()
                request.feature(name, counts, start_ns, end_ns, model="shop")
            processor.now_ns = end_ns + 1
            processor.receive(request.message)
            processor.now_ns += 16 * support.SECOND_NS
            processor.advance()
        second_ns = began + SECOND_H * 3600 * support.SECOND_NS
        first = bool(processor.find_alerts(about="input.f1"))
        second = any(alert.time_ns >= second_ns for alert in processor.find_alerts(about="input.f2"))
        return first, second, processor.stream_state("shop", "input.f2")


def main() -> None:
    checks = support.Checks()
    for seed in (1, 2):
        first, second, status = run(seed)
        checks.that(f"run {seed}: the first feature is told", first, first)
        checks.that(f"run {seed}: the second feature is told", second, f"{second}, its status {status}")
    checks.finish()


if __name__ == "__main__":
    main()
