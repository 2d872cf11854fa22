"""A feature that a model was always given is not sent any more: its name changed, or a step before the model lost it.

The model goes on to be called. From the processor's view the feature's stream has no data, while the model has. That
is a fault as plain as a drift, and must be told within an hour, in an alert that names the feature; the document of
the model must not go on to call the stream `ok`. Default configuration, panes of ten seconds, simulated clock; two
runs.
"""

import numpy as np

from otel_mlmon.testing import SimulatedProcessor
from tests.cases import support

PANE_S, VALUES, BUCKETS = 10, 100, 10
GONE_H, END_H = 1, 2


def run(seed: int) -> tuple[bool, str]:
    random = np.random.default_rng(seed)
    with SimulatedProcessor() as processor:
        began, pane_ns = processor.now_ns, PANE_S * support.SECOND_NS
        for pane in range(END_H * 3600 // PANE_S):
            start_ns = began + pane * pane_ns
            end_ns = start_ns + pane_ns - 1
            request = support.MetricsRequest().predictions("a", VALUES, start_ns, end_ns, model="shop")
            for name in ("age", "income"):
                if name == "income" or pane * PANE_S < GONE_H * 3600:
                    counts = random.multinomial(VALUES, np.full(BUCKETS, 1 / BUCKETS)).tolist()
                    request.feature(name, counts, start_ns, end_ns, model="shop")
            processor.now_ns = end_ns + 1
            processor.receive(request.message)
            processor.now_ns += 16 * support.SECOND_NS
            processor.advance()
        return bool(processor.find_alerts(about="input.age")), processor.stream_state(
            "shop", "input.age"
        ) or "not there"


def main() -> None:
    checks = support.Checks()
    for seed in (1, 2):
        is_told, status = run(seed)
        checks.that(f"run {seed}: an alert that names the feature", is_told, is_told)
        checks.that(f"run {seed}: its status is not ok", status != "ok", status)
    checks.finish()


if __name__ == "__main__":
    main()
