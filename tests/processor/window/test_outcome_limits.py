"""Warnings at 80 % and 100 % of a limit."""

from __future__ import annotations

import pytest

from otel_mlmon.processor.window.outcome import ResourceLimit


def test_a_limit_warns_at_80_and_100_percent_once_until_there_is_room_again(caplog: pytest.LogCaptureFixture) -> None:
    limit = ResourceLimit("max_streams", 10, "streams")
    warned = []
    for count in (7, 8, 9, 10, 10, 9, 10, 7, 8, 10):
        caplog.clear()
        limit.report(count)
        warned.append((count, len(caplog.messages)))
    assert warned == [(7, 0), (8, 1), (9, 0), (10, 1), (10, 0), (9, 0), (10, 0), (7, 0), (8, 1), (10, 1)]
    assert caplog.messages == [
        "10 of 10 streams are in use (limits.max_streams): new ones are rejected. Raise the limit, or lower "
        "limits.stale_after."
    ]


@pytest.mark.parametrize(("count", "added", "has_room"), [(9, 1, True), (10, 1, False), (8, 2, True), (9, 2, False)])
def test_the_last_one_fits(count: int, added: int, has_room: bool) -> None:
    assert ResourceLimit("max_streams", 10, "streams").has_room(count, added) is has_room
