"""A Collector comes back after an outage and sends what it kept: fifteen minutes in one request.

In it a model was slow for thirty seconds and then fast again. The processor goes through the minutes in order and so
finds both the beginning and the end. Whoever is told must be told in that order: the message that it fires, then the
message that it is over. The other way round, the last word is "firing", and somebody is woken by what is long over.

Telling nothing of what is over is acceptable; a firing as the last word is not. Five models, since an order can be
right by luck; and the API must agree with the last message.
"""

import time

from tests.cases import support

CONFIGURATION = {"windows": {"pane": "1s", "lateness": "1s", "rolling": "1h"}}
MODELS = [f"model-{number}" for number in range(5)]


def history(model: str, began_ns: int) -> support.MetricsRequest:
    """800 s, slow between the 100th and the 130th."""
    request = support.MetricsRequest()
    for second in range(800):
        start_ns = began_ns + second * support.SECOND_NS
        seconds = 3 if 100 <= second < 130 else 0.001
        request.durations(seconds, 2000, start_ns, start_ns + support.SECOND_NS - 1, model=model)
    return request


def main() -> None:
    checks = support.Checks()
    with support.WebhookReceiver() as receiver:
        notify = {"notify": [{"webhook": {"url": f"http://127.0.0.1:{receiver.port}/alerts"}}]}
        with support.Processor({**CONFIGURATION, "alerts": notify}) as processor:
            for model in MODELS:
                status, _ = processor.post(history(model, time.time_ns() - 900 * support.SECOND_NS))
                if status != 200:
                    raise RuntimeError(f"answer {status}")
            support.wait_until(lambda: len(receiver.alerts) >= 2 * len(MODELS), time_limit=12)
            told: dict[str, list[str]] = {model: [] for model in MODELS}
            for alert in receiver.alerts:
                if alert["rule"] == "latency":
                    told[alert["model"]].append(alert["state"])
            states = {model: processor.rule(model, "latency") for model in MODELS}
    checks.that("both said, or nothing", all(len(each) in (0, 2) for each in told.values()), told)
    last = [each[-1] for each in told.values() if each]
    checks.that("no 'firing' as the last word about what is over", "firing" not in last, told)
    checks.that("no rule fires any more", "firing" not in states.values(), states)
    checks.finish()


if __name__ == "__main__":
    main()
