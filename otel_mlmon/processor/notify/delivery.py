"""Delivers alerts to one notifier: a queue, time-outs, retries, a circuit breaker and dead letters, on own threads.

An alert handed to a delivery ends in exactly one of two places, its recipient or the dead letters, and handing it over
never waits. Alerts of one notifier stay in order, so "resolved" is never sent before "firing"; notifiers do not affect
each other. Delivery is at least once: an attempt that timed out may still have arrived, hence the idempotency key of
the webhook. Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (equal jitter).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.notify.notifier import Notifier, PermanentError, TransientError

MAX_HANGING: Final = 3
"""Attempts that timed out and never came back; at so many, no new one is made until one of them does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """Holds the time-outs and limits of a delivery."""

    timeout_s: float = 10.0
    """Time-out of one attempt."""
    capacity: int = 100
    """Alerts that wait; beyond it the oldest becomes a dead letter."""
    backoff_s: float = 1.0
    """Before the second attempt; doubled each time."""
    max_backoff_s: float = 60.0
    give_up_after_s: float = 3600.0
    """Time after the first attempt at which the alert is given up."""
    breaker_failures: int = 5
    """Failed attempts in a row, of any alerts, that open the circuit."""
    breaker_open_s: float = 30.0
    """Time for which an open circuit stays open; then one attempt decides."""


class AlertSink(Protocol):
    """Takes alerts that could not be sent."""

    def write(self, alert: Alert, *, notifier: str, reason: str, detail: str) -> None:
        """Stores `alert`; never raises."""


AttemptOutcome = Literal["delivered", "transient", "timeout", "permanent", "error"]
"""The outcome of one attempt. `error` is an unexpected exception in the notifier."""


@dataclass(slots=True)
class _Attempt:
    """One call of a notifier, on a thread that may never come back."""

    outcome: AttemptOutcome = "error"
    detail: str = "the notifier failed; see the log"
    retry_after_s: float | None = None

    def run(self, notifier: Notifier, alert: Alert) -> None:
        with guard("notify"):
            try:
                notifier.notify(alert)
            except TransientError as error:
                self.outcome, self.detail, self.retry_after_s = "transient", str(error), error.retry_after_s
            except PermanentError as error:
                self.outcome, self.detail = "permanent", str(error)
            else:
                self.outcome, self.detail = "delivered", ""


class Delivery:
    """Delivers alerts to one notifier.

    Runs on: `submit` on any thread; everything else on daemon threads of its own, the first made by `start`.

    Args:
        notifier: Sends one alert.
        name: Of the notifier, for counts and dead letters.
        dead_letters: Takes the alerts that could not be sent.
        settings: How hard it tries.
        clock: Seconds, monotonic.
        rng: Of the jitter.
        wait: Lets so many seconds pass; None waits, and less when the delivery is shut down.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        name: str,
        dead_letters: AlertSink,
        settings: DeliverySettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        self.name = name
        self._notifier = notifier
        self._dead_letters = dead_letters
        self._settings = settings or DeliverySettings()
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (jitter, no secret)
        self._wait = wait or self._wait_or_stop
        self._queue: deque[Alert] = deque()
        self._current: Alert | None = None
        self._changed = threading.Condition()
        self._is_stopping = False
        self._outcomes: Counter[str] = Counter()
        self._hanging: list[threading.Thread] = []
        self._failures = 0
        self._thread = threading.Thread(target=self._work, name=f"otel_mlmon-notify-{name}", daemon=True)

    def start(self) -> None:
        """Starts to deliver."""
        self._thread.start()

    def submit(self, alert: Alert) -> None:
        """Queues `alert`. Never waits for the notifier, never raises."""
        with self._changed:
            if self._is_stopping:
                refused: Alert | None = alert
            else:
                is_full = len(self._queue) >= self._settings.capacity
                refused = self._queue.popleft() if is_full else None
                self._queue.append(alert)
                self._changed.notify_all()
        if refused is not None:
            self._give_up(refused, "shutdown" if refused is alert else "overflow", "")

    def shutdown(self, timeout_s: float) -> bool:
        """Attempts the queued alerts once more, then stops; what is not sent by the deadline becomes a dead letter.

        Returns:
            Whether the delivery itself has sent everything or given it up in time.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._changed:
            waiting = [alert for alert in (self._current, *self._queue) if alert is not None]
            self._current = None
            self._queue.clear()
        for alert in waiting:
            self._give_up(alert, "shutdown", "")
        return not waiting

    def outcomes(self) -> dict[str, int]:
        """Returns the counts so far: attempts by outcome, and dead letters as `dead_letter.<reason>`."""
        with self._changed:
            return dict(self._outcomes)

    def pending(self) -> int:
        """Returns how many alerts wait, the one in delivery included."""
        with self._changed:
            return len(self._queue) + (self._current is not None)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_stopping)
                if not self._queue:
                    return
                alert = self._current = self._queue.popleft()
            reason, detail = self._deliver(alert)
            with self._changed:
                is_ours, self._current = self._current is alert, None
            if reason and is_ours:
                self._give_up(alert, reason, detail)

    def _deliver(self, alert: Alert) -> tuple[str, str]:
        """Tries until the alert is sent or given up; returns reason and detail of giving up, empty if it was sent."""
        begin_s = self._clock()
        backoff_s = self._settings.backoff_s
        while True:
            if self._failures >= self._settings.breaker_failures:
                self._wait(self._settings.breaker_open_s)
            attempt = self._attempt(alert)
            with self._changed:
                self._outcomes[attempt.outcome] += 1
            if attempt.outcome == "delivered":
                self._failures = 0
                return "", ""
            self._failures += 1
            if attempt.outcome in ("permanent", "error"):
                return attempt.outcome, attempt.detail
            delay_s = backoff_s * self._rng.uniform(0.5, 1.0)
            if attempt.retry_after_s is not None:
                delay_s = max(delay_s, attempt.retry_after_s)
            if self._is_stopping:
                return "shutdown", attempt.detail
            if self._clock() + delay_s - begin_s > self._settings.give_up_after_s:
                return "given_up", attempt.detail
            self._wait(delay_s)
            backoff_s = min(2 * backoff_s, self._settings.max_backoff_s)

    def _attempt(self, alert: Alert) -> _Attempt:
        # A notifier cannot be stopped from outside; one that hangs keeps its thread, and few may.
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MAX_HANGING:
            self._wait(self._settings.timeout_s)
            return _Attempt("timeout", "earlier attempts still hang")
        attempt = _Attempt()
        name = f"{self._thread.name}-attempt"
        thread = threading.Thread(target=attempt.run, args=(self._notifier, alert), name=name, daemon=True)
        thread.start()
        thread.join(self._settings.timeout_s)
        if thread.is_alive():
            self._hanging.append(thread)
            return _Attempt("timeout", f"no answer within {self._settings.timeout_s:g} s")
        return attempt

    def _wait_or_stop(self, delay_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, timeout=delay_s)

    def _give_up(self, alert: Alert, reason: str, detail: str) -> None:
        with self._changed:
            self._outcomes[f"dead_letter.{reason}"] += 1
        self._dead_letters.write(alert, notifier=self.name, reason=reason, detail=detail)
