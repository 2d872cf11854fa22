"""Silences and maintenance windows: times in which alerts are decided and shown, but nobody is notified of them.

What still fires when its silence ends is notified then. What recipients were told before is still ended for them.
Source: Prometheus Alertmanager, silences.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from typing import Any
from zoneinfo import ZoneInfo

from otel_mlmon.processor.alert.config import DAYS, MaintenanceSection
from otel_mlmon.types import ModelKey

RETENTION_NS = 7 * 86400 * 10**9
"""How long a silence that is over is still listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSilence:
    """A time in which nobody is notified of the alerts of some models and rules."""

    id: str
    model: str = "*"
    """A name or pattern, as in `fraud-*`, which stands for all environments; or an id, as in `fraud@staging`."""
    rule: str = "*"
    """A name or pattern."""
    start_ns: int
    end_ns: int
    """Unix nanoseconds; the silence ends before it."""
    author: str
    reason: str = ""

    def is_active(self, now_ns: int) -> bool:
        """Returns whether the silence withholds notifications at a time."""
        return self.start_ns <= now_ns < self.end_ns

    def matches_model(self, model: ModelKey) -> bool:
        """Returns whether the silence of alerts applies to a model."""
        return _matches_pattern(model.name, self.model) or _matches_pattern(model.id, self.model)

    def matches_rule(self, rule: str) -> bool:
        """Returns whether the silence of alerts applies to an alert rule."""
        return _matches_pattern(rule, self.rule)

    def describe(self) -> str:
        """Describes who silenced alerts until when, and why."""
        end = datetime.fromtimestamp(self.end_ns / 1e9, tz=timezone.utc)
        reason = f": {self.reason}" if self.reason else ""
        return f"silenced by {self.author} until {end:%Y-%m-%d %H:%M} UTC{reason} ({self.id})"

    def to_dict(self, now_ns: int) -> dict[str, Any]:
        """Returns a silence of alerts as plain values for JSON, with the fields that the API has."""
        return {**asdict(self), "is_active": self.is_active(now_ns)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceRequest:
    """A request of an administrator to add a silence of alerts, or to end one."""

    silence: AlertSilence | None = None
    expired_id: str = ""


def find_silence(
    silences: Iterable[AlertSilence],
    maintenance: Iterable[MaintenanceSection],
    *,
    model: ModelKey,
    rule: str,
    now_ns: int,
) -> str:
    """Returns why notifications of an alert rule are withheld now; empty if they are not."""
    for silence in silences:
        if silence.is_active(now_ns) and silence.matches_model(model) and silence.matches_rule(rule):
            return silence.describe()
    for window in maintenance:
        if (
            _matches_pattern(model.name, window.model)
            and _matches_pattern(rule, window.rule)
            and _is_window_open(window, now_ns)
        ):
            return f"maintenance {window.start} to {window.end} {window.timezone}"
    return ""


def _matches_pattern(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _is_window_open(window: MaintenanceSection, now_ns: int) -> bool:
    now = datetime.fromtimestamp(now_ns / 1e9, tz=ZoneInfo(window.timezone))
    time = f"{now:%H:%M}"
    if window.start < window.end:
        return DAYS[now.weekday()] in window.days and window.start <= time < window.end
    # Over midnight: it belongs to the day on which it began.
    yesterday = DAYS[(now - timedelta(days=1)).weekday()]
    return (DAYS[now.weekday()] in window.days and time >= window.start) or (
        yesterday in window.days and time < window.end
    )
