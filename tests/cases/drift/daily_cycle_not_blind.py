"""A model's classes have a daily cycle: by day five hundredths more of one class, by night of another. 86,000 a day.

After two quiet weeks the model breaks: fifteen hundredths of all predictions move from one class to a class that was
rare, and stay there for ten days. Somebody who looks at a plot sees it the same day. Either an alert must come that
is about this shift, within a day of it, or the processor must say that it cannot judge this stream: in those ten days
it must not go on calling it `ok`. That it is quiet because it took the cycle for noise is no excuse: green is read as
"watched".

Default configuration but panes of five minutes, as a calm clock; two runs with fixed seeds. Right if in every run the
shift is told within 24 h, or the status at the end of those 24 h is not `ok`. An alert that fires since before the
shift counts as not ok.
"""

import numpy as np

from otel_mlmon.testing import SimulatedProcessor
from tests.cases import support

PANE_S, PANES_A_DAY, ITEMS = 300, 288, 300
QUIET_DAYS, SHIFTED_DAYS = 14, 10
SHARES, AMPLITUDE, SHIFT = np.array([0.4, 0.3, 0.2, 0.1]), 0.05, 0.15


def shares_at(pane: int) -> np.ndarray:
    cycle = AMPLITUDE * np.sin(2 * np.pi * pane / PANES_A_DAY)
    shares: np.ndarray = SHARES + np.array([-cycle, cycle, 0, 0])
    return shares + np.array([-SHIFT, 0, 0, SHIFT]) if pane >= QUIET_DAYS * PANES_A_DAY else shares


def run(seed: int) -> tuple[float | None, str | None, list[str | None]]:
    """Hours until the shift was told; the status after a day of it, and each day after."""
    random = np.random.default_rng(seed)
    with SimulatedProcessor({"windows": {"pane": f"{PANE_S}s"}}) as processor:
        began, pane_ns = processor.now_ns, PANE_S * support.SECOND_NS
        days = []
        shifted_ns = began + QUIET_DAYS * PANES_A_DAY * pane_ns
        for pane in range((QUIET_DAYS + SHIFTED_DAYS) * PANES_A_DAY):
            start_ns = began + pane * pane_ns
            request = support.MetricsRequest()
            for label, count in zip("abcd", random.multinomial(ITEMS, shares_at(pane)), strict=True):
                request.predictions(label, int(count), start_ns, start_ns + pane_ns - 1, model="shop")
            processor.now_ns = start_ns + pane_ns
            processor.receive(request.message)
            processor.now_ns += 20 * support.SECOND_NS  # beyond the lateness that is allowed
            processor.advance()
            if pane >= QUIET_DAYS * PANES_A_DAY and (pane + 1) % PANES_A_DAY == 0:
                days.append(processor.stream_state("shop", "prediction.label"))
        told = [
            alert.time_ns
            for alert in processor.find_alerts(rule="prediction_drift")
            if alert.state.name == "FIRING" and alert.time_ns >= shifted_ns
        ]
    return (told[0] - shifted_ns) / 3600e9 if told else None, days[0], days


def main() -> None:
    checks = support.Checks()
    for seed in (1, 2):
        hours, after_a_day, days = run(seed)
        is_right = (hours is not None and hours <= 24) or after_a_day != "ok"
        told = "never told" if hours is None else f"told after {hours:.1f} h"
        checks.that(f"run {seed}: told within 24 h, or not called ok", is_right, f"{told}, status by day {days}")
    checks.finish()


if __name__ == "__main__":
    main()
