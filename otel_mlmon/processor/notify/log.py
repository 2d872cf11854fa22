"""Alerts as lines of the log `otel_mlmon.alerts`: critical is ERROR, warning is WARNING, resolved is INFO."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from otel_mlmon.processor.alert.alert import Alert, Severity
from otel_mlmon.processor.alert.message import render

LOGGER: Final = "otel_mlmon.alerts"
_LEVELS: Final[Mapping[Severity, int]] = {"warning": logging.WARNING, "critical": logging.ERROR}


class LogNotifier:
    """Writes an alert as text.

    Args:
        is_unicode: Whether the log's readers can show blocks and arrows.
    """

    def __init__(self, *, is_unicode: bool = True) -> None:
        self._is_unicode = is_unicode
        self._log = logging.getLogger(LOGGER)

    def notify(self, alert: Alert) -> None:
        """Log `alert`; cannot fail."""
        level = logging.INFO if alert.is_resolved else _LEVELS[alert.severity]
        self._log.log(level, "%s", render(alert, is_unicode=self._is_unicode))
