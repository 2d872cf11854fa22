from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from otel_mlmon.processor.alert.message import format_alert
from otel_mlmon.processor.notify.log import LogNotifier
from tests.support.alerts import FIRING, RESOLVED


def test_severity_is_the_level_and_the_text_the_line(caplog: pytest.LogCaptureFixture) -> None:
    warning = replace(FIRING, severity="warning")
    with caplog.at_level(logging.INFO, logger="otel_mlmon.alerts"):
        for alert in (FIRING, warning, RESOLVED):
            LogNotifier().notify(alert)
        LogNotifier(is_unicode=False).notify(FIRING)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, format_alert(FIRING)),
        (logging.WARNING, format_alert(warning)),
        (logging.INFO, format_alert(RESOLVED)),
        (logging.ERROR, format_alert(FIRING, is_unicode=False)),
    ]
