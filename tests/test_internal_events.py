from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import ClassVar

import pytest

from otel_mlmon import semconv
from otel_mlmon.internal_events import EventJournal, RecordsDropped, ValuesDropped


def test_an_event_within_an_event_on_one_thread_as_of_a_signal_handler_does_not_wait_for_ever() -> None:
    journal = EventJournal()

    class Interrupted:
        metric: ClassVar[str] = semconv.RECORDS_DROPPED.name
        level: ClassVar[int] = 10

        @property
        def count(self) -> int:
            """Asked for while the totals are changed."""
            journal.emit_event(RecordsDropped(reason="inner", count=1))
            return 1

        def metric_attributes(self) -> Mapping[str, str]:
            return {"reason": "outer"}

        def log_message(self) -> str:
            return "interrupted"

    thread = threading.Thread(target=journal.emit_event, args=(Interrupted(),), daemon=True)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
    assert journal.read_totals(semconv.RECORDS_DROPPED.name) == {(("reason", "outer"),): 1, (("reason", "inner"),): 1}


def test_the_same_event_is_logged_once_in_the_interval_and_counted_every_time(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    journal = EventJournal(clock=lambda: now_s[0], interval_s=60.0)
    for time_s, reason, count in ((0.0, "a", 1), (59.9, "a", 2), (59.9, "b", 0), (60.0, "a", 3), (119.9, "a", 4)):
        now_s[0] = time_s
        journal.emit_event(RecordsDropped(reason=reason, count=count))
    assert journal.read_totals(semconv.RECORDS_DROPPED.name) == {(("reason", "a"),): 10, (("reason", "b"),): 0}
    assert [record.getMessage() for record in caplog.records] == [
        "1 inference records were dropped: a.",
        "0 inference records were dropped: b.",
        "3 inference records were dropped: a.",
    ]
    journal.reset_totals()
    journal.emit_event(ValuesDropped(reason="negative", count=5))
    assert journal.read_totals(semconv.RECORDS_DROPPED.name) == {}
    assert caplog.records[-1].getMessage() == (
        "5 values of features or outputs were dropped: negative; see bulk_unavailable_reason of status()."
    )
