"""Delivers alerts to one notifier, with time-outs, retries and a circuit breaker, on threads of its own.

Handing an alert over never waits. It is settled exactly once: when its recipient has it, or when the dead letters have
it because no attempt will succeed or the retry period is over. What is not settled when the process ends is handed over
again at the next start. Delivery is at least once, hence `Alert.key`, which is the same for every attempt. Alerts of
one model and rule stay in order; one that its recipient refuses does not hold up the others. After a long outage those
that wait are merged (`merge.py`). Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (equal jitter).
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.notify.merge import QueuedAlert, merge_queue
from otel_mlmon.processor.notify.notifier import Notifier, PermanentError, RenewingNotifier, TransientError

MAX_HANGING: Final = 3
"""Attempts that timed out and never came back; at so many, no new one is made until one of them does."""


MAX_DOUBLINGS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """The time-outs, retries and limits with which alerts are delivered to a notifier."""

    timeout_s: float = 10.0
    """Time-out of one attempt."""
    capacity: int = 1000
    """Alerts that wait; beyond it they are merged, and if that does not help the oldest becomes a dead letter."""
    backoff_s: float = 1.0
    """Before the second attempt; doubled each time."""
    max_backoff_s: float = 20.0
    give_up_after_s: float = 86_400.0
    """The retry period: time after which an alert that nobody took is given up."""
    merge_after_s: float = 300.0
    """An outage is long from this time on: what waits is merged before the next attempt."""
    breaker_failures: int = 5
    """Failed attempts in a row, of any alerts, that open the circuit."""
    breaker_open_s: float = 15.0
    """Time for which an open circuit stays open; then one attempt decides."""


class AlertSink(Protocol):
    """A store of alerts that could not be sent."""

    def write(self, alert: Alert, *, notifier: str, reason: str, detail: str) -> None:
        """Stores an alert that could not be sent, with the reason; never raises."""


AttemptOutcome = Literal["delivered", "transient", "timeout", "permanent", "error"]
"""The outcome of one attempt. `error` is an unexpected exception in the notifier."""


@dataclass(slots=True)
class DeliveryAttempt:
    """One attempt to send an alert through a notifier, on a thread that may hang for ever."""

    outcome: AttemptOutcome = "error"
    detail: str = "the notifier failed; see the log"
    retry_after_s: float | None = None
    is_ambiguous: bool = False
    """Whether it may have arrived although it failed."""

    def run(self, call: Callable[[], None]) -> None:
        """Calls the notifier, and stores whether the attempt to send an alert succeeded."""
        with guard("notify"):
            try:
                call()
            except TransientError as error:
                self.outcome, self.detail, self.retry_after_s = "transient", str(error), error.retry_after_s
                self.is_ambiguous = error.is_ambiguous
            except PermanentError as error:
                self.outcome, self.detail = "permanent", str(error)
            else:
                self.outcome, self.detail = "delivered", ""


class AlertDelivery:
    """Delivers alerts to one notifier: queues them, retries failed ones, and gives up what nobody accepts.

    Runs on: `submit` on any thread; everything else on daemon threads of its own, the first made by `start`.

    Args:
        notifier: Sends one alert.
        name: Of the notifier, for counts and dead letters.
        dead_letters: Takes the alerts that could not be sent.
        settle: Called with the key of each alert that need not be handed over again; any thread, must not wait.
        settings: How hard it tries.
        clock: Seconds, monotonic.
        rng: Of the jitter.
        wait: Lets so many seconds pass; None waits, and less when something changes.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        name: str,
        dead_letters: AlertSink,
        settle: Callable[[str], None] = lambda _: None,
        settings: DeliverySettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        self.name = name
        self._notifier = notifier
        self._renewing = notifier if isinstance(notifier, RenewingNotifier) else None
        self._dead_letters = dead_letters
        self._settle = settle
        self._settings = settings or DeliverySettings()
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (jitter, no secret)
        self._wait = wait
        self._queue: list[QueuedAlert] = []
        self._current: QueuedAlert | None = None
        self._active: dict[str, Alert] = {}
        """The alerts that the recipient knows and that are not over, by fingerprint."""
        self._renewal_s = math.inf
        self._closed_s = -math.inf
        """When an open circuit closes."""
        self._changed = threading.Condition()
        self._changes = 0
        self._is_stopping = False
        self._outcomes: Counter[str] = Counter()
        self._hanging: list[threading.Thread] = []
        self._failures = 0
        self._thread = threading.Thread(target=self._run_worker, name=f"otel_mlmon-notify-{name}", daemon=True)

    def start(self, active: Iterable[Alert] = ()) -> None:
        """Starts the thread that delivers alerts to the notifier.

        Args:
            active: What the recipient was told before a restart and is not over; renewed at once where it must be.
        """
        self._active = {alert.fingerprint: alert for alert in active}
        self._renewal_s = self._clock()
        self._thread.start()

    def submit(self, alert: Alert, *, age_s: float = 0.0) -> None:
        """Queues an alert for the notifier, after `age_s` seconds of waiting elsewhere. Never waits, never raises."""
        now_s = self._clock()
        expires_s = now_s + self._settings.give_up_after_s - age_s
        refused: QueuedAlert | None = None
        with self._changed:
            self._queue.append(QueuedAlert(alert=alert, queued_s=now_s - age_s, expires_s=expires_s))
            if len(self._queue) > self._settings.capacity:
                self._merge_queue()
            if len(self._queue) > self._settings.capacity:
                refused = self._queue.pop(0)
            self._notify_change()
        if refused is not None:
            self._give_up_entry(refused, "overflow", "")

    def shutdown(self, timeout_s: float) -> bool:
        """Tries once more to send the queued alerts, then stops, within `timeout_s` seconds.

        Returns:
            Whether every alert is settled; the others are to be handed over again.
        """
        with self._changed:
            if not self._is_stopping:
                self._is_stopping, self._closed_s = True, -math.inf
                for entry in self._queue:
                    entry.due_s = -math.inf
            self._notify_change()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return self.pending() == 0

    def outcomes(self) -> dict[str, int]:
        """Returns the number of attempts to send alerts by outcome, and of superseded alerts and dead letters."""
        with self._changed:
            return dict(self._outcomes)

    def pending(self) -> int:
        """Returns the number of alerts that are not sent yet, with the one that is being sent."""
        with self._changed:
            return len(self._queue) + (self._current is not None)

    def _run_worker(self) -> None:
        while True:
            with self._changed:
                changes = self._changes
                now_s = self._clock()
                entry = self._take_entry(now_s)
                if entry is None and self._is_stopping:
                    return
                delay_s = self._compute_delay_s(now_s)
            if entry is not None:
                self._deliver_entry(entry)
            elif self._renewing is not None and self._active and self._renewal_s <= now_s:
                self._renew_alerts(self._renewing)
            elif self._wait is not None and delay_s < math.inf:
                self._wait(delay_s)
            else:
                with self._changed:
                    timeout_s = min(delay_s, threading.TIMEOUT_MAX)
                    self._changed.wait_for(lambda: self._changes != changes, timeout_s)  # noqa: B023 (called here)

    def _take_entry(self, now_s: float) -> QueuedAlert | None:
        """Removes and returns the queued alert to send now; later alerts of the same rule wait for earlier ones."""
        if self._closed_s > now_s:
            return None
        heads = [entry for entry in self._list_first_entries() if entry.due_s <= now_s]
        if not heads:
            return None
        if now_s - heads[0].queued_s >= self._settings.merge_after_s and len(self._queue) > 1:
            self._merge_queue()
            heads = [entry for entry in self._list_first_entries() if entry.due_s <= now_s]
            if not heads:
                return None
        entry = min(heads, key=lambda head: head.due_s)
        self._queue.remove(entry)
        self._current = entry
        return entry

    def _list_first_entries(self) -> list[QueuedAlert]:
        heads: dict[str, QueuedAlert] = {}
        for entry in self._queue:
            heads.setdefault(entry.alert.fingerprint, entry)
        return list(heads.values())

    def _compute_delay_s(self, now_s: float) -> float:
        """Returns the seconds until the next alert is due to be sent or repeated."""
        due_s = min((max(entry.due_s, self._closed_s) for entry in self._list_first_entries()), default=math.inf)
        renewal_s = self._renewal_s if self._renewing is not None and self._active else math.inf
        return max(0.0, min(due_s, renewal_s) - now_s)

    def _deliver_entry(self, entry: QueuedAlert) -> None:
        """Tries once to send an alert; settles it, or queues it again in its place."""
        attempt = self._run_attempt(lambda: self._notifier.notify(entry.alert))
        entry.attempts += 1
        entry.is_ambiguous |= attempt.is_ambiguous
        reason = ""
        with self._changed:
            self._outcomes[attempt.outcome] += 1
            self._current = None
            if attempt.outcome == "delivered":
                self._failures = 0
                self._update_active_alerts(entry.alert)
            else:
                self._failures += 1
                reason = attempt.outcome
                if attempt.outcome in ("transient", "timeout"):
                    reason = self._queue_entry_again(entry, attempt)
                if self._failures >= self._settings.breaker_failures:
                    self._closed_s = self._clock() + self._settings.breaker_open_s
        if attempt.outcome == "delivered":
            self._settle_entry(entry)
        elif reason:
            self._give_up_entry(entry, reason, attempt.detail)

    def _queue_entry_again(self, entry: QueuedAlert, attempt: DeliveryAttempt) -> str:
        """Queues an alert for another attempt; returns the reason if no more attempt will be made."""
        backoff_s = min(
            self._settings.backoff_s * 2.0 ** min(entry.attempts - 1, MAX_DOUBLINGS), self._settings.max_backoff_s
        )
        delay_s = max(backoff_s * self._rng.uniform(0.5, 1.0), attempt.retry_after_s or 0.0)
        entry.due_s = math.inf if self._is_stopping else self._clock() + delay_s
        if not self._is_stopping and entry.due_s > entry.expires_s:
            return "given_up"
        position = next(
            (at for at, other in enumerate(self._queue) if other.alert.sequence >= entry.alert.sequence),
            len(self._queue),
        )
        self._queue.insert(position, entry)
        return ""

    def _update_active_alerts(self, alert: Alert) -> None:
        if alert.is_resolved:
            self._active.pop(alert.fingerprint, None)
        else:
            self._active[alert.fingerprint] = alert
        if self._renewing is not None and len(self._active) == 1:
            self._renewal_s = self._clock() + self._renewing.renew_every_s

    def _renew_alerts(self, notifier: RenewingNotifier) -> None:
        alerts = list(self._active.values())
        attempt = self._run_attempt(lambda: notifier.renew(alerts))
        with self._changed:
            self._outcomes["renewed" if attempt.outcome == "delivered" else "renewal_failed"] += 1
            self._renewal_s = self._clock() + notifier.renew_every_s

    def _run_attempt(self, call: Callable[[], None]) -> DeliveryAttempt:
        # A notifier cannot be stopped from outside; one that hangs keeps its thread, and few may.
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MAX_HANGING:
            return DeliveryAttempt("timeout", "earlier attempts still hang")
        attempt = DeliveryAttempt()
        name = f"{self._thread.name}-attempt"
        thread = threading.Thread(target=attempt.run, args=(call,), name=name, daemon=True)
        thread.start()
        thread.join(self._settings.timeout_s)
        if thread.is_alive():
            self._hanging.append(thread)
            return DeliveryAttempt("timeout", f"no answer within {self._settings.timeout_s:g} s", is_ambiguous=True)
        return attempt

    def _merge_queue(self) -> None:
        before = len(self._queue)
        self._queue = merge_queue(self._queue)
        self._outcomes["superseded"] += before - len(self._queue)

    def _notify_change(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _settle_entry(self, entry: QueuedAlert) -> None:
        for key in (*entry.superseded, entry.alert.key):
            self._settle(key)

    def _give_up_entry(self, entry: QueuedAlert, reason: str, detail: str) -> None:
        with self._changed:
            self._outcomes[f"dead_letter.{reason}"] += 1
        self._dead_letters.write(entry.alert, notifier=self.name, reason=reason, detail=detail)
        self._settle_entry(entry)
