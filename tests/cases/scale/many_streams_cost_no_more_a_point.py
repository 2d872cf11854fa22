"""A processor watches 5,000 streams, 50 models of 100 streams each, in place of one model with 100.

Each sends its point a pane, a request a model, and each request is committed before it is answered. The work there is
for one more point should not depend on how many other streams there are: otherwise a processor that is half as busy
as it may be cannot take twice the models. CPU time a point with 5,000 streams may be 1.5 times that with 100 in the
same process, the smaller of two measurements each; the two are taken in turn, so that a busy machine slows both.
"""

import time

from otel_mlmon.testing import SimulatedProcessor
from tests.cases import support

FEATURES, BUCKETS = 98, list(range(1, 31))
CONFIGURATION = {"models": {"*": {"reference": {"learn": 2000}}}}
PANE_NS = 10 * support.SECOND_NS


class Fleet:
    """So many models of 100 streams, each a sender with a request a pane, on a clock of its own."""

    def __init__(self, models: int) -> None:
        self.models = [f"model-{number}" for number in range(models)]
        self._processor = SimulatedProcessor(CONFIGURATION)
        self._processor.now_ns = 1_767_225_600 * support.SECOND_NS

    def _request(self, model: str, end_ns: int) -> support.MetricsRequest:
        start_ns = end_ns - PANE_NS + 1
        request = support.MetricsRequest(f"worker-of-{model}")
        request.predictions("a", 465, start_ns, end_ns, model=model).durations(
            0.002, 465, start_ns, end_ns, model=model
        )
        for feature in range(FEATURES):
            request.feature(f"f{feature}", BUCKETS, start_ns, end_ns, model=model)
        return request

    def pane(self) -> float:
        """CPU seconds of one pane."""
        self._processor.now_ns += PANE_NS
        requests = [self._request(model, self._processor.now_ns - support.SECOND_NS) for model in self.models]
        began = time.process_time()
        for request in requests:
            self._processor.receive(request.message)
            self._processor.advance()
        return time.process_time() - began

    def streams(self) -> int:
        return sum(len(model["streams"]) for model in self._processor.document()["models"].values())

    def microseconds_a_point(self, panes: int) -> float:
        return sum(self.pane() for _ in range(panes)) / panes / len(self.models) / (FEATURES + 2) * 1e6

    def close(self) -> None:
        self._processor.close()


def main() -> None:
    checks = support.Checks()
    few, many = Fleet(1), Fleet(50)
    few.microseconds_a_point(14)
    many.microseconds_a_point(14)  # as old as the few: series known, references learned
    few_cost, many_cost = [], []
    for _ in range(2):
        few_cost.append(few.microseconds_a_point(25))
        many_cost.append(many.microseconds_a_point(1))
    ratio = min(many_cost) / min(few_cost)
    costs = f"{min(few_cost):.0f} and {min(many_cost):.0f} µs"
    came = f"{ratio:.2f} times ({costs}; {few.streams()} and {many.streams()} streams)"
    checks.that("CPU a point at most 1.5 times that with few streams", ratio <= 1.5, came)
    few.close()
    many.close()
    checks.finish()


if __name__ == "__main__":
    main()
