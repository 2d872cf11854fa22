"""`ok` means that a drift of a usual size would have been found; where it would not, the state is `weak`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from otel_mlmon.processor.detect.detectable import DetectableShift
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.detect.state import DAY_NS
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, ReferenceOrigin, StreamKey, StreamWindow
from otel_mlmon.types import Floats, ModelKey
from tests.support.cycles import MONDAY

STREAM = StreamKey(ModelKey("shop", "1"), "prediction.label")
LINE = 6.8
MINUTES_10_NS = DAY_NS // 144


def run(
    *,
    shares: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1),
    reference: tuple[int, ...] = (4_000, 3_000, 2_000, 1_000),
    origin: ReferenceOrigin = "learned",
    per_pane: int = 600,
    panes: int = 60,
    has_cycles: bool = False,
    first_day: int = MONDAY,
    policy: DetectionPolicy | None = None,
) -> tuple[DriftScore, DetectableShift]:
    """The last score of quiet panes of ten minutes, with what it states."""
    chosen = policy or DetectionPolicy(tolerance=0.02, direction="both")
    evaluator = DriftEvaluator(policy_for=lambda _: chosen, alarm_line_for=lambda _: LINE, has_cycles=has_cycles)
    known = ReferenceCounts(
        bins=HistogramBins(names=tuple("abcd"[: len(reference)]), is_ordered=False),
        counts=np.array(reference),
        origin=origin,
    )
    rng = np.random.default_rng(7)
    start_ns = first_day * DAY_NS
    for pane in range(panes):
        counts = rng.multinomial(per_pane, shares)
        begin_ns = start_ns + pane * MINUTES_10_NS
        window = StreamWindow(
            stream=STREAM, start_ns=begin_ns, end_ns=begin_ns + MINUTES_10_NS, reference=known, pane=counts,
            rolling=counts, rolling_start_ns=begin_ns,
        )  # fmt: skip
        ((_, score),) = evaluator.evaluate([window])
    detectable = evaluator.measure_detectable([STREAM.model], is_over=not has_cycles)[STREAM.model][STREAM.stream]
    return score.with_detectable(detectable), detectable


def test_ok_states_a_small_shift() -> None:
    score, detectable = run()
    assert (score.state, detectable.weakness) == ("ok", None)
    assert detectable.items_per_day == pytest.approx(36_000.0, rel=0.011)
    assert 0.04 < detectable.shift < 0.07
    assert math.isnan(detectable.ratio)
    assert score.detectable == detectable


@pytest.mark.parametrize(
    ("reference", "shares", "per_pane", "weakness"),
    [
        ((4_000, 3_000, 2_000, 1_000), (0.4, 0.3, 0.2, 0.1), 12, "little_traffic"),
        ((40, 30, 20, 10), (0.4, 0.3, 0.2, 0.1), 600, "small_reference"),
        ((10_000, 0), (1.0, 0.0), 600, "one_value"),
    ],
)
def test_weak(reference: tuple[int, ...], shares: tuple[float, ...], per_pane: int, weakness: str) -> None:
    score, detectable = run(reference=reference, shares=shares, per_pane=per_pane, panes=90)
    assert (score.state, detectable.weakness) == ("weak", weakness)


def test_an_allowance_is_not_weak_because_nothing_failed_yet() -> None:
    budget = (990_000_000, 10_000_000)
    policy = DetectionPolicy(tolerance=0.0, direction="up")
    score, detectable = run(reference=budget, origin="budget", shares=(1.0, 0.0), policy=policy)
    assert score.state == "ok"
    assert detectable.shift < 0.02


def test_a_larger_shift_may_be_accepted() -> None:
    policy = DetectionPolicy(tolerance=0.02, direction="both", max_detectable=0.5)
    assert run(reference=(40, 30, 20, 10), policy=policy)[0].state == "ok"


def test_a_rare_bin_states_by_how_much_it_has_to_grow() -> None:
    _, detectable = run(reference=(6_000, 3_900, 100, 0), shares=(0.6, 0.39, 0.01, 0.0))
    assert 2.0 < detectable.ratio < 5.0
    assert 0.002 < detectable.new_share < 0.01


@pytest.mark.parametrize(
    ("first_day", "days", "weakness"),
    [
        (MONDAY, 0.4, "unknown_hours"),
        (MONDAY, 2.2, None),
        (MONDAY + 3, 2.2, "unknown_day"),
        (MONDAY + 4, 2.2, "unknown_day"),
    ],
)
def test_a_kind_of_day_that_is_not_known_is_weak(first_day: int, days: float, weakness: str | None) -> None:
    """The first hours; Monday to Wednesday; a Saturday after two weekdays; a Sunday after a weekday and a Saturday."""
    score, detectable = run(has_cycles=True, first_day=first_day, panes=int(days * 144))
    assert detectable.weakness == weakness
    assert score.state == ("weak" if weakness else "ok")


def test_what_drifts_or_learns_is_called_so() -> None:
    _, detectable = run(reference=(40, 30, 20, 10))
    for state in ("learning", "drift", "no_data"):
        score = DriftScore(state=state, log10_evidence=0.0, log10_alarm_line=LINE)
        assert score.with_detectable(detectable).state == state


@pytest.mark.parametrize("seed", range(8))
def test_no_stream_is_ok_for_more_than_a_day_while_twice_what_it_states_goes_unseen(seed: int) -> None:
    """Random classes, traffic, references and bursts; every other stream has a cycle of ±.05 within a day."""
    rng = np.random.default_rng([77, seed])
    bins, burst = int(rng.choice([2, 4, 10])), int(rng.choice([1, 1, 6]))
    per_pane, has_cycles = int(rng.choice([30, 250, 900])) * burst, seed % 2 == 1
    shares = np.maximum(rng.dirichlet(np.full(bins, 2.0)), 0.02)
    shares /= shares.sum()
    names = tuple(map(str, range(bins)))
    known = ReferenceCounts(
        bins=HistogramBins(names=names, is_ordered=False), counts=rng.multinomial(5_000 // burst * 2, shares) * burst
    )
    policy = DetectionPolicy(tolerance=0.02, direction="both")
    evaluator = DriftEvaluator(policy_for=lambda _: policy, alarm_line_for=lambda _: LINE, has_cycles=has_cycles)
    moved, state, stated = shares, "", math.nan
    panes_a_day, days = 48, 5
    for pane in range(days * panes_a_day):
        if pane == (days - 1) * panes_a_day:
            if state != "ok":
                return
            moved = _move(shares, 2.0 * stated)
        swing = 0.05 * math.sin(2.0 * math.pi * pane / panes_a_day) * has_cycles
        present = moved.copy()
        top = np.argsort(moved)[-2:]
        present[top] += swing * min(1.0, float(moved[top].min()) / 0.06) * np.array([1.0, -1.0])
        counts = rng.multinomial(per_pane // burst, np.clip(present, 0.0, 1.0) / present.sum()) * burst
        start_ns = MONDAY * DAY_NS + pane * DAY_NS // panes_a_day
        window = StreamWindow(
            stream=STREAM, start_ns=start_ns, end_ns=start_ns + DAY_NS // panes_a_day, reference=known, pane=counts,
            rolling=counts, rolling_start_ns=start_ns,
        )  # fmt: skip
        ((_, score),) = evaluator.evaluate([window])
        if score.state == "drift":
            assert pane >= (days - 1) * panes_a_day
            return
        if pane % 12 == 11:
            detectable = evaluator.measure_detectable([STREAM.model])[STREAM.model][STREAM.stream]
            state, stated = score.with_detectable(detectable).state, detectable.shift
    assert state != "ok"


def _move(shares: Floats, size: float) -> Floats:
    """Moves so much, or what is there, from the most frequent bin to the others in proportion."""
    top = int(shares.argmax())
    taken = min(size, 0.95 * float(shares[top]))
    moved: Floats = shares + taken * shares / (1.0 - shares[top])
    moved[top] = shares[top] - taken
    return moved
