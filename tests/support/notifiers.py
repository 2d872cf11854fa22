"""A notifier that fails by a script, and dead letters that a test can wait for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.config.section import ConfigSection


@dataclass(slots=True)
class ScriptedNotifier:
    """A notifier that raises the next error of `script` until it is used up; it waits for an event in it."""

    script: list[Exception | threading.Event] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    calls: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    section_type: ClassVar = ConfigSection

    @classmethod
    def create(cls, section: ConfigSection, emit_event: Any) -> ScriptedNotifier:
        return cls()

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
            self.alerts.append(alert)
            self.changed.notify_all()

    def wait_for(self, count: int, timeout_s: float = 30.0) -> Sequence[Alert]:
        """Returns the alerts that were sent, once there are `count`."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.alerts) >= count, timeout_s), self.alerts
            return list(self.alerts)

    def wait_calls(self, count: int, timeout_s: float = 30.0) -> None:
        """Waits until it was called `count` times."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.calls >= count, timeout_s), self.calls


@dataclass(slots=True)
class DeadLetterList:
    """Dead letters of alerts in memory."""

    letters: list[tuple[Alert, str, str, str]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def write(self, alert: Alert, *, notifier: str, reason: str, detail: str) -> None:
        with self.changed:
            self.letters.append((alert, notifier, reason, detail))
            self.changed.notify_all()

    def wait_for(self, count: int, timeout_s: float = 30.0) -> list[tuple[Alert, str, str, str]]:
        """Returns the dead letters, once there are `count`."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.letters) >= count, timeout_s), self.letters
            return list(self.letters)
