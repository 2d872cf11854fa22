"""Our own clock is set back and forth, and time goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.window.progress import MAX_STEP_NS, SteadyClock
from otel_mlmon.testing import SimulatedProcessor

SECOND = 10**9


def readings(*seconds: int) -> list[int]:
    """What it reads while the clock below it shows these times."""
    times = iter(seconds)
    clock = SteadyClock(lambda: next(times) * SECOND)
    return [clock() // SECOND for _ in seconds]


def test_a_clock_that_runs_on_is_read_as_it_is() -> None:
    assert readings(1_000, 1_010, 5_000, 5_000) == [1_000, 1_010, 5_000, 5_000]


def test_where_it_is_set_back_time_goes_on_from_the_latest() -> None:
    assert readings(10_000, 6_400, 6_410, 6_430) == [10_000, 10_000, 10_010, 10_030]


def test_where_it_is_set_right_again_both_agree_again() -> None:
    assert readings(10_000, 6_400, 6_410, 10_030, 10_040) == [10_000, 10_000, 10_010, 10_030, 10_040]


@given(times=st.lists(st.integers(0, 100 * MAX_STEP_NS), min_size=1, max_size=30))
def test_it_never_runs_back_and_never_behind_the_clock_below(times: list[int]) -> None:
    below = iter(times)
    clock = SteadyClock(lambda: next(below))
    shown = [clock() for _ in times]
    assert shown == sorted(shown)
    assert all(steady >= time_ns for steady, time_ns in zip(shown, times, strict=True))


def test_a_processor_whose_clock_is_set_back_an_hour_counts_and_judges_as_ever() -> None:
    def run(step_back_s: int) -> tuple[int, int, str | None]:
        with SimulatedProcessor({"models": {"*": {"reference": {"learn": 1000}}}}) as processor:
            right_ns = processor.now_ns
            for pane in range(60):
                right_ns += 10 * SECOND
                processor.now_ns = right_ns  # the senders' clocks are right
                processor.send_counts("shop", labels={"a": 100, "b": 100})
                processor.now_ns = right_ns - (step_back_s * SECOND if pane >= 30 else 0)
                processor.advance()
            model = processor.document()["models"]["shop"]
            return model["predictions"], model["late_predictions"], processor.stream_state("shop", "prediction.label")

    assert run(3600) == run(0) == (12_000, 0, "weak")
