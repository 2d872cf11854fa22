"""The webhook's receiver is down while an alert fires, and before it is back the processor is restarted, here by
SIGKILL.

The alert was decided and, as the API says, still fires. Once the receiver is back it must get that alert, within half
a minute: it did not get it before, and nobody else will tell it. The same with the receiver away for as long and no
restart is the control.
"""

import time
from collections.abc import Callable

from tests.cases import support
from tests.support.ports import free_port

CONFIGURATION = {"windows": {"pane": "1s", "lateness": "1s", "rolling": "1h"}}


def feed(processor: support.Processor, is_enough: Callable[[], bool], time_limit: float) -> bool:
    """Slow calls, twice a second, until enough is seen."""
    end = time.monotonic() + time_limit
    while time.monotonic() < end:
        now = time.time_ns()
        request = support.MetricsRequest().durations(3, 2000, now - support.SECOND_NS // 2, now, model="shop")
        try:
            processor.post(request)
            if is_enough():
                return True
        except OSError:
            pass
        time.sleep(0.5)
    return False


def scenario(checks: support.Checks, name: str, is_restarted: bool) -> None:
    port = free_port()
    notify = {"notify": [{"webhook": {"url": f"http://127.0.0.1:{port}/alerts"}}]}
    with support.Processor({**CONFIGURATION, "alerts": notify}) as processor:
        fires = feed(processor, lambda: processor.rule("shop", "latency") == "firing", 90)
        checks.that(f"{name}: the latency rule fires", fires, fires)
        time.sleep(1.5)
        if is_restarted:
            processor.kill()
        with support.WebhookReceiver(port) as receiver:
            if is_restarted:
                processor.start()
            feed(processor, lambda: bool(receiver.alerts), 30)
            states = [alert["state"] for alert in receiver.alerts]
            came = f"{states}; the rule is {processor.rule('shop', 'latency')}"
            checks.that(f"{name}: the receiver is told that it fires", "firing" in states, came)


def main() -> None:
    checks = support.Checks()
    scenario(checks, "receiver away, no restart", is_restarted=False)
    scenario(checks, "receiver away, restart", is_restarted=True)
    checks.finish()


if __name__ == "__main__":
    main()
