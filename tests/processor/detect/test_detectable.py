"""The stated shift is the one that the engine finds: to a factor of 1.2, in the hardest direction."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.drift.detectable import Cell, compare_ratios, compare_shifts
from otel_mlmon.processor.detect.detectable import (
    DetectableShift,
    DetectionSetting,
    Weakness,
    compute_detectable_shifts,
    describe_detectable,
    describe_weakness,
    find_even_share,
    find_weakness_reasons,
)

FACTOR = 1.2
STEP = 1.1
"""Sizes of the shift are a tenth apart, and of so few runs nine of ten is not exact either."""


def setting(
    *,
    share: float = 0.5,
    tolerance: float = 0.02,
    size: float = 5_000.0,
    effect: float = 1.0,
    items: float = 86_400.0,
    log_line: float = 22.0,
    bins: int = 4,
) -> DetectionSetting:
    """One stream, all of whose bins are alike."""
    numbers = (share, tolerance, bins / (4.0 * size), size, effect, items, log_line)
    return DetectionSetting(*(np.array([number]) for number in numbers))


def shift(**arguments: float) -> float:
    return float(compute_detectable_shifts(setting(**arguments))[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cell",
    [
        Cell(2, 10_000, 5_000),
        Cell(4, 86_400, 5_000, tolerance=0.05),
        Cell(10, 10_000, 50_000, burst=10, tolerance=0.05),
        Cell(20, 86_400, 5_000),
    ],
    ids=str,
)
def test_what_is_stated_is_found_in_nine_of_ten_days(cell: Cell) -> None:
    _, ratio = compare_shifts(cell, np.random.default_rng(21), runs=20)
    assert 1.0 / (FACTOR * STEP) <= ratio <= FACTOR * STEP


@pytest.mark.parametrize("share", [0.0, 0.005])
def test_the_growth_of_a_rare_bin_that_is_stated_is_found(share: float) -> None:
    _, ratio = compare_ratios(share, 10_000, 5_000, np.random.default_rng(22), runs=20)
    assert 1.0 / (FACTOR * STEP) <= ratio <= FACTOR * STEP


@given(st.floats(0.05, 0.5), st.floats(0.0, 0.1), st.floats(500, 1e5), st.floats(1.0, 30.0), st.floats(2_000, 1e7))
def test_more_of_what_helps_never_hurts(
    share: float, tolerance: float, size: float, effect: float, items: float
) -> None:
    def at(**changed: float) -> float:
        arguments = {"share": share, "tolerance": tolerance, "size": size, "effect": effect, "items": items} | changed
        found = shift(**arguments)
        return math.inf if math.isnan(found) else found

    stated = at()
    assert stated > tolerance
    slack = 1e-6
    assert at(size=2 * size) <= stated + slack
    assert at(effect=2 * effect) >= stated - slack
    assert at(tolerance=tolerance + 0.01) >= stated - slack
    assert at(items=2 * items) <= stated + slack


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8))
def test_the_even_share_is_near_that_of_the_best_set(weights: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    sums = [
        shares[list(subset)].sum()
        for size in range(len(weights))
        for subset in itertools.combinations(range(len(weights)), size)
    ]
    best = max(min(total, 1.0 - total) for total in sums)
    found = find_even_share(shares, "both")
    assert found <= best + 1e-9
    assert found * (1.0 - found) >= 0.85 * best * (1.0 - best)
    runs = [shares[:edge].sum() for edge in range(1, len(weights))]
    for direction in ("up", "down"):
        run = find_even_share(shares, direction)
        assert min(abs(run - total) for total in (*runs, *(1.0 - np.array(runs)))) < 1e-9
        assert min(run, 1.0 - run) == pytest.approx(max(min(total, 1.0 - total) for total in runs))


def test_a_shift_that_cannot_be_is_none() -> None:
    assert math.isnan(shift(items=50.0))
    assert math.isnan(shift(items=0.0))
    assert math.isnan(shift(tolerance=0.6))
    assert math.isnan(shift(size=1e-9))


@pytest.mark.parametrize(
    ("arguments", "weakness"),
    [
        ({}, None),
        ({"items": 900.0, "size": 1e6}, "little_traffic"),
        ({"size": 120.0}, "small_reference"),
        ({"effect": 40.0, "size": 40_000.0}, "bursts"),
        ({"tolerance": 0.2}, "tolerance"),
    ],
)
def test_the_main_reason(arguments: dict[str, float], weakness: str | None) -> None:
    one = setting(**arguments)  # type: ignore[arg-type]
    no, yes = np.array([False]), np.array([True])
    days: tuple[Weakness, ...] = ("unknown_hours", "unknown_day", "holiday")
    shifts, maximum = compute_detectable_shifts(one), np.array([0.15])
    assert find_weakness_reasons(shifts, one, maximum, is_one_value=no, days=[None]) == [weakness]
    for day in days:
        assert find_weakness_reasons(shifts, one, maximum, is_one_value=no, days=[day]) == [day]
        assert find_weakness_reasons(shifts, one, maximum, is_one_value=yes, days=[day]) == ["one_value"]


def test_words() -> None:
    nan = math.nan
    fine = DetectableShift(0.0623, 3.14, 0.009, 86_400.0, nan, 0.15, None)
    assert describe_detectable(fine) == (
        "a shift of 6.2 % of the values would be found within a day, a rare one at 3.1 times its share, "
        "a new one at 0.9 %"
    )
    assert describe_weakness(fine, design_effect=1.0, reference_count=5_000) == ("", "")
    blind = DetectableShift(nan, nan, nan, 1_200.0, nan, 0.15, "bursts")
    assert describe_weakness(blind, design_effect=36.4, reference_count=5_000, span="in a day of this data") == (
        "its values come in bursts (φ 36), and 1 200 come a day: no shift, however large, would be found in a "
        "day of this data",
        "Learn the reference from more values (reference.learn), or accept larger shifts (max_detectable).",
    )
