"""A notifier that fails on order, and dead letters one can wait for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from otel_mlmon.processor.alert.alert import Alert


@dataclass(slots=True)
class Scripted:
    """Raises the next of `script` until it is used up; an event in it is waited for."""

    script: list[Exception | threading.Event] = field(default_factory=list)
    told: list[Alert] = field(default_factory=list)
    calls: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def notify(self, alert: Alert) -> None:
        with self.changed:
            self.calls += 1
            step = self.script.pop(0) if self.script else None
            self.changed.notify_all()
        if isinstance(step, Exception):
            raise step
        if step is not None:
            step.wait(30)
        with self.changed:
            self.told.append(alert)
            self.changed.notify_all()

    def wait_told(self, count: int, timeout_s: float = 10.0) -> Sequence[Alert]:
        """What was told, once it is `count`."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.told) >= count, timeout_s), self.told
            return list(self.told)

    def wait_calls(self, count: int, timeout_s: float = 10.0) -> None:
        """Until it was called `count` times."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.calls >= count, timeout_s), self.calls


@dataclass(slots=True)
class Letters:
    """Dead letters in memory."""

    kept: list[tuple[Alert, str, str, str]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def keep(self, alert: Alert, *, notifier: str, reason: str, detail: str) -> None:
        with self.changed:
            self.kept.append((alert, notifier, reason, detail))
            self.changed.notify_all()

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[tuple[Alert, str, str, str]]:
        """The letters, once there are `count`."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.kept) >= count, timeout_s), self.kept
            return list(self.kept)
