"""Decides when recipients are notified of an alert: once when it begins, when there is news of it, and when it ends.

News of an alert that fires (streams that join, a severity that rises) are gathered until nothing was added for a
minute, and told as one update. A silence withholds the beginning until it is over; an end is told to whoever knows the
beginning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from otel_mlmon.processor.alert import silence as silencing
from otel_mlmon.processor.alert.alert import Alert, RuleState
from otel_mlmon.processor.alert.config import MaintenanceSection
from otel_mlmon.processor.alert.records import RuleRecord
from otel_mlmon.processor.alert.rules.rule import AlertRule
from otel_mlmon.types import ModelKey

UPDATE_AFTER_S: Final = 60.0
"""News are told when nothing was added for so long."""
UPDATE_WITHIN_S: Final = 300.0
"""News are told no later than this, however much is added."""
SEVERITY: Final = "severity"
"""The item of `Alert.news` that says that the severity rose."""


class AlertAnnouncer:
    """Decides which changes of alerts are notified, numbers the notifications, and withholds silenced ones.

    Runs on: the thread that owns the state.

    Args:
        maintenance: Times of the week without notifications.
        silences: Those of before a restart.
        sequence: The last number of before a restart.
    """

    def __init__(
        self,
        maintenance: Iterable[MaintenanceSection],
        *,
        silences: Iterable[silencing.AlertSilence] = (),
        sequence: int = 0,
    ) -> None:
        self._maintenance = tuple(maintenance)
        self.silences = list(silences)
        """The silences that are to come, active, or over of late."""
        self.sequence = sequence

    def apply_silence(self, request: silencing.SilenceRequest, now_ns: int) -> tuple[silencing.AlertSilence, ...]:
        """Adds a silence of alerts, or ends one now; returns all silences."""
        self.silences = [
            replace(silence, end_ns=min(silence.end_ns, now_ns)) if silence.id == request.expired_id else silence
            for silence in self.silences
        ]
        if request.silence is not None:
            self.silences.append(request.silence)
        return tuple(self.silences)

    def forget_silences(self, now_ns: int) -> None:
        """Forgets silences of alerts that ended more than a week ago."""
        self.silences = [silence for silence in self.silences if silence.end_ns + silencing.RETENTION_NS > now_ns]

    def find_silence(self, model: ModelKey, rule: str, now_ns: int) -> str:
        """Returns why notifications of an alert rule are withheld now; empty if they are not."""
        if not self.silences and not self._maintenance:
            return ""
        return silencing.find_silence(self.silences, self._maintenance, model=model, rule=rule, now_ns=now_ns)

    def announce(self, entry: RuleRecord, alert: Alert, now_ns: int) -> list[Alert]:
        """Stores the alert of a rule, and returns it in a list if recipients are to be notified of it, else nothing."""
        is_silent = not alert.is_resolved and bool(self.find_silence(alert.model_key, alert.rule, now_ns))
        if entry.is_notified:
            alert = replace(alert, previous=entry.notified_state)
        elif entry.is_withheld and not alert.is_resolved:  # to recipients it begins now
            alert = replace(alert, previous=RuleState.OK, joined=(), news=(), incident_ns=0, silence="")
        entry.is_withheld = is_silent
        if not is_silent and (alert.state is not entry.notified_state or alert.news):
            self.sequence += 1
            first_severity = alert.severity if alert.is_beginning else alert.first_severity or alert.severity
            incident_ns = alert.incident_ns or now_ns
            alert = replace(alert, sequence=self.sequence, incident_ns=incident_ns, first_severity=first_severity)
            entry.notified_state = alert.state
            entry.news, entry.news_since_ns = [], 0
            entry.notified_streams = (
                [] if alert.is_resolved else _join_stream_names(entry.notified_streams, entry.causes)
            )
            entry.alert = alert
            return [alert]
        entry.alert = alert
        return []

    def has_due_news(self, entry: RuleRecord, rule: AlertRule, now_ns: int) -> bool:
        """Gathers news of a firing alert (new streams, a higher severity); returns whether to notify of it now."""
        if not entry.is_notified or entry.is_withheld or entry.alert is None:
            return False
        news = [stream for stream in entry.causes if stream not in entry.notified_streams]
        if entry.alert.severity == "warning" and rule.grade_severity(entry.causes.values()) == "critical":
            news.append(SEVERITY)
        if set(news) - set(entry.news):
            entry.news_since_ns = entry.news_since_ns if entry.news else now_ns
            entry.news_changed_ns = now_ns
        entry.news = news
        is_complete = now_ns - entry.news_changed_ns >= UPDATE_AFTER_S * 1e9
        is_late = now_ns - entry.news_since_ns >= UPDATE_WITHIN_S * 1e9
        return bool(news) and (is_complete or is_late)

    def announce_news(self, entry: RuleRecord, alert: Alert, now_ns: int) -> list[Alert]:
        """Returns the update that notifies of the news of a firing alert, with the onset of the streams that joined.

        Args:
            entry: The rule's record; `entry.alert` is the last notification.
            alert: The alert as it is now.
            now_ns: Unix nanoseconds.
        """
        last = entry.alert
        if last is None or self.find_silence(alert.model_key, alert.rule, now_ns):
            return []
        joined = [cause for cause in alert.causes if cause.stream in entry.news]
        update = replace(
            alert,
            severity="critical" if "critical" in (last.severity, alert.severity) else "warning",
            onset_ns=min((cause.onset_ns for cause in joined if cause.onset_ns), default=last.onset_ns),
            causes=(*joined, *(cause for cause in alert.causes if cause not in joined)),
            joined=tuple(_join_stream_names(last.joined, (cause.stream for cause in joined))),
            news=tuple(entry.news),
        )
        return self.announce(entry, update, now_ns)


def _join_stream_names(streams: Iterable[str], others: Iterable[str]) -> list[str]:
    """Joins two lists of stream names, in order and each name once."""
    return list(dict.fromkeys((*streams, *others)))
