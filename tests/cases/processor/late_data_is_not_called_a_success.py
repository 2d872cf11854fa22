"""Two machines send the same model's predictions; the clock of one is a minute late. And a Collector replays ten
minutes.

What comes too late for its pane is not counted. OTLP has words for it: the answer is a success with
`partial_success`, the number of rejected points and why. A sender that is told "success" and nothing else believes
that all was counted; only the processor's own counters know better. So the predictions counted, and those that the
answers rejected, must add up to those sent. Counting late points all the same is right too.

Also: one point of a cumulative series whose clock was ten minutes ahead. Either it is rejected in words, or what
comes after it is counted: it must not silence the series with success after success.
"""

import time

from tests.cases import support

CONFIGURATION = {"windows": {"pane": "1s", "lateness": "2s", "rolling": "1h"}}


class Sender:
    """Counts what it sent, and what the answers rejected."""

    def __init__(self, processor: support.Processor) -> None:
        self._processor, self.sent, self.rejected = processor, 0, 0

    def send(self, model: str, worker: str, count: int, end_ns: int) -> None:
        request = support.MetricsRequest(worker)
        request.predictions("a", count, end_ns - support.SECOND_NS, end_ns, model=model)
        status, answer = self._processor.post(request)
        self.sent += count
        if status != 200 or support.rejected_points(answer):
            self.rejected += count


def counted(processor: support.Processor, model: str) -> int:
    return processor.models().get(model, {}).get("predictions") or 0


def skewed_clocks(checks: support.Checks, processor: support.Processor) -> None:
    sender = Sender(processor)
    for _ in range(20):
        now = time.time_ns()
        sender.send("skewed", "on-time", 1, now)
        sender.send("skewed", "behind", 1, now - 60 * support.SECOND_NS)
        time.sleep(0.4)
    time.sleep(5)
    got = counted(processor, "skewed")
    checks.that(
        "clock a minute late: counted + rejected in words = sent",
        got + sender.rejected == sender.sent,
        f"{got} + {sender.rejected} of {sender.sent}",
    )


def replay(checks: support.Checks, processor: support.Processor) -> None:
    sender = Sender(processor)
    for _ in range(10):
        sender.send("replayed", "live", 1, time.time_ns())
        time.sleep(0.5)
    began = time.time_ns() - 600 * support.SECOND_NS
    for second in range(60):
        sender.send("replayed", "kept", 10, began + second * support.SECOND_NS)
    sender.send("replayed", "live", 1, time.time_ns())
    time.sleep(5)
    got = counted(processor, "replayed")
    checks.that(
        "replay beside live data: counted + rejected in words = sent",
        got + sender.rejected == sender.sent,
        f"{got} + {sender.rejected} of {sender.sent}",
    )


def ahead_for_once(checks: support.Checks, processor: support.Processor) -> None:
    began, total, rejected, points = time.time_ns(), 0, 0, 20
    for step in range(points):
        total += 10
        end_ns = time.time_ns() + (600 * support.SECOND_NS if step == 3 else 0)
        request = support.MetricsRequest()
        request.predictions("a", total, began, end_ns, model="ahead", temporality=support.CUMULATIVE)
        rejected += support.rejected_points(processor.post(request)[1])
        time.sleep(0.4)
    time.sleep(5)
    got = counted(processor, "ahead")
    is_right = got >= total - 20 or rejected >= points - 5
    checks.that(
        "one point ten minutes ahead: the rest counted, or rejected in words",
        is_right,
        f"{got} of {total}, {rejected} points rejected",
    )


def main() -> None:
    checks = support.Checks()
    with support.Processor(CONFIGURATION) as processor:
        skewed_clocks(checks, processor)
        replay(checks, processor)
        ahead_for_once(checks, processor)
    checks.finish()


if __name__ == "__main__":
    main()
