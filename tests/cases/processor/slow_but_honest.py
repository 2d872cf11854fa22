"""More comes than the processor can take: 80 senders of 2,000 points a request, who wait five seconds, as Collectors
do.

It cannot do all of it, but it can say so: an answer 429 or 503 in time makes a sender wait and come again. A request
that is taken in, kept waiting beyond the sender's five seconds and then counted all the same is work for nothing: the
sender has gone and sends it again, and with enough of these nothing gets through at all. At most one request in ten
may end by the sender's patience. (Refusing is right; answering all in time is right too.)

Thirty-five seconds of load; the senders run on the same machine, so the offer falls when it is slow.
"""

import threading
import time
from collections import Counter

from tests.cases import support

SENDERS, SECONDS, PATIENCE_S = 80, 35, 5


def body(sender: int, now: int) -> bytes:
    """2,000 points: ten models, 40 labels, five slices of the last second."""
    request = support.MetricsRequest(f"worker-{sender}")
    for model in range(10):
        for label in range(40):
            for part in range(5):
                start_ns = now - support.SECOND_NS + part
                request.predictions(f"label-{label}", 1, start_ns, now + part, model=f"model-{model}")
    return request.body()


def send_until(end: float, sender: int, processor: support.Processor, answers: Counter[str]) -> None:
    while time.monotonic() < end:
        request = body(sender, time.time_ns())
        for _ in range(6):
            try:
                status, _ = processor.post(request, time_limit=PATIENCE_S)
                answer = str(status)
            except TimeoutError:
                answer = "timed out"
            except OSError:
                answer = "connection refused or reset"
            answers[answer] += 1
            if answer == "200" or time.monotonic() > end:
                break
            time.sleep(1 if answer in ("429", "503") else 0.2)


def main() -> None:
    checks = support.Checks()
    answers: Counter[str] = Counter()
    with support.Processor() as processor:
        end = time.monotonic() + SECONDS
        threads = [
            threading.Thread(target=send_until, args=(end, sender, processor, answers), daemon=True)
            for sender in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + PATIENCE_S + 10)
        is_alive = processor.get("/healthz", time_limit=20)[0] == 200
    total = sum(answers.values())
    checks.that("at most one request in ten times out", answers["timed out"] <= total / 10, f"{dict(answers)}")
    checks.that("it is there afterwards", is_alive, is_alive)
    checks.finish()


if __name__ == "__main__":
    main()
