"""Writes alerts as text to the log `otel_mlmon.alerts`: critical is ERROR, warning is WARNING, resolved is INFO."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from otel_mlmon.processor.alert.alert import Alert, Severity
from otel_mlmon.processor.alert.message import format_alert
from otel_mlmon.processor.config.section import ConfigSection

LOGGER: Final = "otel_mlmon.alerts"
_LEVELS: Final[Mapping[Severity, int]] = {"warning": logging.WARNING, "critical": logging.ERROR}


class LogSection(ConfigSection):
    """The configuration of alerts in the processor's log."""


class LogNotifier:
    """Writes alerts as text to the processor's log.

    Args:
        is_unicode: Whether the log's readers can show blocks and arrows.
    """

    section_type: ClassVar = LogSection

    def __init__(self, *, is_unicode: bool = True) -> None:
        self._is_unicode = is_unicode
        self._log = logging.getLogger(LOGGER)

    @classmethod
    def create(cls, section: LogSection, emit_event: Any) -> LogNotifier:  # noqa: ARG003 (the Protocol's)
        """Makes the notifier that writes alerts to the processor's log."""
        return cls()

    def notify(self, alert: Alert) -> None:
        """Logs an alert as text; cannot fail."""
        level = logging.INFO if alert.is_resolved else _LEVELS[alert.severity]
        self._log.log(level, "%s", format_alert(alert, is_unicode=self._is_unicode))
