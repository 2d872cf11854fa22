"""The small form of those long runs that need no process of their own; `python -m benchmarks.soak` has the full one."""

from __future__ import annotations

from benchmarks import soak_faults


def test_clocks_that_jump_lose_and_double_nothing() -> None:
    assert soak_faults.clocks(count=40, seed=3) == []


def test_a_backlog_that_comes_newest_first_is_counted_whole() -> None:
    assert soak_faults.backlog(seconds=300) == []


def test_senders_that_never_return_leave_nothing_behind() -> None:
    assert soak_faults.stale_senders(count=40, features=3) == []
