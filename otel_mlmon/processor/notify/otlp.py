"""Sends alerts as OTLP events `ml.alert`. How an event is sent is a parameter; no OpenTelemetry is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import Alert, Severity
from otel_mlmon.processor.alert.message import format_alert_title
from otel_mlmon.processor.config.section import ConfigSection
from otel_mlmon.processor.notify.notifier import EmitEvent, LogSeverity

PREFIX: Final = "ml.alert."
_SEVERITIES: Final[Mapping[Severity, LogSeverity]] = {"warning": "WARN", "critical": "ERROR"}


class OtlpSection(ConfigSection):
    """The configuration of alerts as OTLP events to `forward.endpoint`; none are sent while that is null."""


class OtlpNotifier:
    """Sends alerts as OTLP log records with the event name `ml.alert`.

    Args:
        emit_event: Sends an event; returns at once.
    """

    section_type: ClassVar = OtlpSection

    def __init__(self, emit_event: EmitEvent) -> None:
        self._emit_event = emit_event

    @classmethod
    def create(cls, section: OtlpSection, emit_event: EmitEvent | None) -> OtlpNotifier | None:  # noqa: ARG003
        """Makes the notifier that sends alerts over OTLP; None where no OTLP endpoint is configured."""
        return None if emit_event is None else cls(emit_event)

    def notify(self, alert: Alert) -> None:
        """Sends an alert as an OTLP event."""
        severity: LogSeverity = "INFO" if alert.is_resolved else _SEVERITIES[alert.severity]
        self._emit_event(
            semconv.EVENT_ALERT, severity, format_alert_title(alert), build_event_attributes(alert), alert.time_ns
        )


def build_event_attributes(alert: Alert) -> dict[str, str | int | float | bool]:
    """Returns the attributes of the OTLP event of an alert: plain values, with the first cause in full."""
    attributes: dict[str, str | int | float | bool] = {
        semconv.MODEL_NAME: alert.model,
        semconv.ALERT_RULE: alert.rule,
        f"{PREFIX}state": alert.state.value,
        f"{PREFIX}previous": alert.previous.value,
        f"{PREFIX}severity": alert.severity,
        f"{PREFIX}fingerprint": alert.fingerprint,
        f"{PREFIX}onset": alert.onset_ns,
        f"{PREFIX}causes": len(alert.causes),
    }
    if alert.version:
        attributes[semconv.MODEL_VERSION] = alert.version
    if alert.environment:
        attributes[semconv.DEPLOYMENT_ENVIRONMENT] = alert.environment
    if alert.causes:
        cause = alert.causes[0]
        attributes[semconv.DRIFT_STREAM] = cause.stream
        attributes[f"{PREFIX}value"] = cause.value
        attributes[f"{PREFIX}bound"] = cause.bound
        attributes[f"{PREFIX}reference"] = cause.reference
        attributes[f"{PREFIX}current"] = cause.current
    return attributes
