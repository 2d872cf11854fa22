"""Alerts as OTLP events `ml.alert`. How an event is sent is a parameter; no OpenTelemetry is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import Alert, Severity
from otel_mlmon.processor.alert.message import title

LogSeverity: TypeAlias = Literal["INFO", "WARN", "ERROR"]

EmitEvent: TypeAlias = Callable[[str, LogSeverity, str, dict[str, str | int | float | bool], int], None]
"""Name, severity, body, attributes, time in Unix nanoseconds."""

PREFIX: Final = "ml.alert."
_SEVERITIES: Final[Mapping[Severity, LogSeverity]] = {"warning": "WARN", "critical": "ERROR"}


class OtlpNotifier:
    """Hands an alert to `emit` as one event.

    Args:
        emit: Sends an event; returns at once.
    """

    def __init__(self, emit: EmitEvent) -> None:
        self._emit = emit

    def notify(self, alert: Alert) -> None:
        """Emit `alert`."""
        severity: LogSeverity = "INFO" if alert.is_resolved else _SEVERITIES[alert.severity]
        self._emit(semconv.EVENT_ALERT, severity, title(alert), attributes_of(alert), alert.at_ns)


def attributes_of(alert: Alert) -> dict[str, str | int | float | bool]:
    """What the event carries: scalars, the first cause spelled out."""
    attributes: dict[str, str | int | float | bool] = {
        semconv.MODEL_NAME: alert.model,
        semconv.ALERT_RULE: alert.rule,
        f"{PREFIX}state": alert.state.name.lower(),
        f"{PREFIX}previous": alert.previous.name.lower(),
        f"{PREFIX}severity": alert.severity,
        f"{PREFIX}fingerprint": alert.fingerprint,
        f"{PREFIX}since": alert.since_ns,
        f"{PREFIX}causes": len(alert.causes),
    }
    if alert.version:
        attributes[semconv.MODEL_VERSION] = alert.version
    if alert.causes:
        cause = alert.causes[0]
        attributes[semconv.DRIFT_STREAM] = cause.stream
        attributes[f"{PREFIX}value"] = cause.value
        attributes[f"{PREFIX}bound"] = cause.bound
        attributes[f"{PREFIX}before"] = cause.before
        attributes[f"{PREFIX}now"] = cause.now
    return attributes
