"""Hands every alert to the deliveries of all notifiers, and collects which alerts each of them has settled."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.notify.delivery import AlertDelivery, AlertSink, DeliverySettings
from otel_mlmon.processor.notify.notifier import Notifier, SlowNotifier


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """An alert in the outbox, with the notifiers whose recipients may not have it yet."""

    alert: Alert
    notifiers: tuple[str, ...]
    queued_ns: int
    """When it was raised, Unix nanoseconds."""


class AlertDispatcher(Protocol):
    """Hands alerts to the notifiers; no method but `shutdown` waits."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all notifiers."""

    def start(self, active: Iterable[Alert]) -> None:
        """Starts to deliver alerts; `active` are those that recipients were notified of and that have not ended."""

    def submit(self, entry: OutboxEntry) -> None:
        """Hands an alert of the outbox to the notifiers that its entry names."""

    def pop_settled(self) -> list[tuple[str, str]]:
        """Returns the notifier and the key of each alert that was sent or given up since the last call."""

    def shutdown(self) -> None:
        """Tries once more to send the queued alerts, then stops, within a few seconds."""


class Dispatcher:
    """Hands alerts to the deliveries of all notifiers, by the notifiers' names.

    Runs on: any thread; no method waits but `shutdown`.

    Args:
        notifiers: By name.
        dead_letters: Takes the alerts that could not be sent.
        settings: How hard each delivery tries.
        clock_ns: Unix nanoseconds.
        shutdown_s: How long `shutdown` waits.
    """

    def __init__(
        self,
        notifiers: dict[str, Notifier],
        *,
        dead_letters: AlertSink,
        settings: DeliverySettings,
        clock_ns: Callable[[], int],
        shutdown_s: float = 4.0,
    ) -> None:
        self.is_complete = True
        """Whether every alert was settled when it was shut down."""
        self._shutdown_s = shutdown_s
        self._dead_letters = dead_letters
        self._clock_ns = clock_ns
        self._settled: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.deliveries: dict[str, AlertDelivery] = {
            name: AlertDelivery(
                notifier,
                name=name,
                dead_letters=dead_letters,
                settings=_extend_timeout(settings, notifier),
                settle=partial(self._record_settled, name),
            )
            for name, notifier in notifiers.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all notifiers."""
        return tuple(self.deliveries)

    def start(self, active: Iterable[Alert]) -> None:
        """Starts all deliveries; `active` are the alerts that recipients were notified of and that have not ended."""
        alerts = list(active)
        for delivery in self.deliveries.values():
            delivery.start(alerts)

    def submit(self, entry: OutboxEntry) -> None:
        """Hands an alert of the outbox to its notifiers; for one that is not configured now it is a dead letter."""
        age_s = max(0.0, (self._clock_ns() - entry.queued_ns) / 1e9)
        for name in entry.notifiers:
            if name in self.deliveries:
                self.deliveries[name].submit(entry.alert, age_s=age_s)
            else:
                self._dead_letters.write(
                    entry.alert, notifier=name, reason="removed", detail="it is not configured any more"
                )
                self._record_settled(name, entry.alert.key)

    def shutdown(self) -> None:
        """Tries once more to send the queued alerts of all notifiers, then stops, within a few seconds."""
        ends_s = time.monotonic() + self._shutdown_s
        for delivery in self.deliveries.values():
            delivery.shutdown(0.0)
        for delivery in self.deliveries.values():
            self.is_complete &= delivery.shutdown(max(0.0, ends_s - time.monotonic()))

    def pop_settled(self) -> list[tuple[str, str]]:
        """Returns the notifier and the key of each alert that was sent or given up since the last call."""
        settled = []
        while not self._settled.empty():
            settled.append(self._settled.get())
        return settled

    def _record_settled(self, name: str, key: str) -> None:
        self._settled.put((name, key))


def _extend_timeout(settings: DeliverySettings, notifier: Notifier) -> DeliverySettings:
    if not isinstance(notifier, SlowNotifier):
        return settings
    return replace(settings, timeout_s=max(settings.timeout_s, notifier.attempt_timeout_s + 2.0))
