"""What senders name cannot forge a line of the processor's log."""

from __future__ import annotations

import json
import logging

import pytest

from otel_mlmon.cli import processor

NAME = "fraud\n2026-01-01 00:00:00,000 CRITICAL otel_mlmon: forged\r\x1b[2J\u202e"


@pytest.fixture
def record() -> logging.LogRecord:
    message = "Model %s carries a reference."
    return logging.LogRecord("otel_mlmon.processor", logging.INFO, __file__, 1, message, (NAME,), None)


def test_a_text_line_ends_where_the_message_ends(record: logging.LogRecord) -> None:
    first, second = processor._TextLogFormatter().format(record).splitlines()
    assert first.endswith(" INFO otel_mlmon.processor: Model fraud")
    assert second == "    2026-01-01 00:00:00,000 CRITICAL otel_mlmon: forged??[2J? carries a reference."


def test_a_fault_of_ours_keeps_its_traceback(record: logging.LogRecord) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert processor._TextLogFormatter().format(record).splitlines()[-1] == "ValueError: broken"


def test_json_is_one_line_with_the_name_as_it_was_sent(record: logging.LogRecord) -> None:
    (line,) = processor._JsonLogFormatter().format(record).splitlines()
    assert json.loads(line)["body"] == f"Model {NAME} carries a reference."
