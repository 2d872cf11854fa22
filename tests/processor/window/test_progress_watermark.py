"""The watermark of several senders."""

from __future__ import annotations

from otel_mlmon.processor.window.progress import SenderWatermarks
from tests.support.observations import MODEL


def watermarks(*points: tuple[str, int, int]) -> SenderWatermarks:
    """Of points by sender, event time and time of arrival; idle after 30."""
    made = SenderWatermarks(MODEL, 30)
    for sender, time_ns, now_ns in points:
        made.add_point(sender, time_ns, now_ns)
    return made


def test_the_sender_that_is_furthest_behind_counts() -> None:
    assert watermarks(("a", 100, 1), ("b", 80, 1), ("a", 90, 2)).compute_watermark(0) == 80


def test_one_that_is_too_far_behind_does_not() -> None:
    assert watermarks(("a", 100, 1), ("b", 70, 1)).compute_watermark(0) == 70
    assert watermarks(("a", 100, 1), ("b", 3, 1)).compute_watermark(0) == 70


def test_without_senders_it_is_the_default() -> None:
    assert watermarks().compute_watermark(7) == 7


def test_idle_senders_are_removed_unless_the_processor_was_away() -> None:
    senders = watermarks(("a", 100, 10), ("b", 80, 5))
    assert list(senders.remove_idle(34, 0)) == []
    assert list(senders.remove_idle(35, 6)) == []  # nobody could be received before
    assert list(senders.remove_idle(36, 6)) == ["b"]
    assert (list(senders.senders), senders.compute_watermark(0)) == (["a"], 100)
