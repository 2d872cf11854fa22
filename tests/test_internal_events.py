from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import ClassVar

from otel_mlmon import semconv
from otel_mlmon.internal_events import Journal, RecordsDropped


def test_an_event_within_an_event_on_one_thread_as_of_a_signal_handler_does_not_wait_for_ever() -> None:
    journal = Journal()

    class Interrupted:
        metric: ClassVar[str] = semconv.RECORDS_DROPPED.name
        level: ClassVar[int] = 10

        @property
        def count(self) -> int:
            """Asked for while the totals are changed."""
            journal.emit(RecordsDropped(reason="inner", count=1))
            return 1

        def attributes(self) -> Mapping[str, str]:
            return {"reason": "outer"}

        def message(self) -> str:
            return "interrupted"

    thread = threading.Thread(target=journal.emit, args=(Interrupted(),), daemon=True)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
    assert journal.totals(semconv.RECORDS_DROPPED.name) == {(("reason", "outer"),): 1, (("reason", "inner"),): 1}
