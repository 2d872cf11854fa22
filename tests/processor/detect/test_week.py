"""The kinds of day of a week are found from whole days, wherever they begin and whichever they are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.week import WEEKDAYS, compute_weekday, find_day_kinds

MONDAY = 4
"""5 January 1970."""
SHARES = np.array([0.4, 0.3, 0.2, 0.1])
HOURS = np.arange(24)


def draw(
    moves: tuple[float, ...],
    *,
    days: int = 14,
    begins: int = 24,
    per_hour: int = 3_600,
    seed: int = 1,
    wave: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Days from a Monday on whose local days begin at an hour of the day before, 24 for midnight, and move so much."""
    rng = np.random.default_rng(seed)
    numbers = MONDAY + np.arange(days)
    local = numbers[:, None] + (begins <= HOURS)
    moved = np.array(moves)[(local + 3) % WEEKDAYS] + wave * rng.normal(size=(days, 1))
    moved = moved + 0.05 * np.sin(2.0 * np.pi * HOURS / 24.0)
    shares = np.repeat(np.repeat(SHARES[None, None], days, 0), 24, 1)
    shares[..., 0] -= moved
    shares[..., 1] += moved
    return numbers, rng.multinomial(per_hour, shares).astype(np.float64)


def kinds_of(moves: tuple[float, ...], begins: int) -> list[list[int]]:
    """Where each kind is, in the order in which they come in the week, by hour of the week in UTC."""
    local = np.arange(WEEKDAYS)[:, None] + (begins <= HOURS)
    values = np.array(moves)[local % WEEKDAYS]
    order = np.array(sorted(set(moves), key=lambda value: -moves.count(value)))
    kinds: list[list[int]] = np.abs(values[..., None] - order).argmin(-1).tolist()
    return kinds


def agreement(kinds: NDArray[np.int64], moves: tuple[float, ...], begins: int) -> float:
    """The share of the hours of a week that are of the right kind, whatever the kinds are called."""
    right = np.array(kinds_of(moves, begins))
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (kinds.ravel(), right.ravel()), 1)
    return float(pairs.max(1).sum() / kinds.size) if kinds.max() == right.max() else 0.0


NEAR = 0.97
"""No more than an hour at the begin and the end of two kinds is wrong."""

WEEKEND = (0.0, 0.0, 0.0, 0.0, 0.0, 0.06, 0.06)


@pytest.mark.parametrize("begins", [24, 14, 8, 18, 3])
@pytest.mark.parametrize(
    "moves",
    [
        WEEKEND,
        (0.0, 0.0, 0.0, 0.0, 0.06, 0.06, 0.0),
        (0.06, 0.0, 0.0, 0.0, 0.0, 0.0, 0.06),
        (0.0, 0.0, 0.08, 0.0, 0.0, 0.0, 0.08),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05),
    ],
)
def test_two_kinds_are_found_with_the_hour_at_which_their_days_begin(moves: tuple[float, ...], begins: int) -> None:
    days, hours = draw(moves, begins=begins, days=15)
    assert agreement(find_day_kinds(days, hours, min_items=1_000.0, has_zone=False), moves, begins) > NEAR


@pytest.mark.parametrize("begins", [24, 10])
def test_three_kinds_are_found(begins: int) -> None:
    moves = (0.0, 0.0, 0.0, 0.0, 0.0, 0.06, 0.12)
    days, hours = draw(moves, begins=begins, days=16)
    kinds = find_day_kinds(days, hours, min_items=1_000.0, has_zone=False)
    assert kinds.max() == 2
    assert agreement(kinds, moves, begins) > NEAR


def test_a_shape_of_the_day_of_its_own_makes_a_kind() -> None:
    days, hours = draw((0.0,) * 7)
    flat = np.random.default_rng(3).multinomial(3_600, SHARES, size=hours.shape[:2])
    is_weekend = np.asarray(compute_weekday(days)) >= 5
    hours[is_weekend] = flat[is_weekend]
    kinds = find_day_kinds(days, hours, min_items=1_000.0, has_zone=True)
    assert kinds.tolist() == kinds_of(WEEKEND, 24)


def test_where_the_zone_is_known_days_begin_at_midnight() -> None:
    days, hours = draw(WEEKEND, begins=12, days=15)
    kinds = find_day_kinds(days, hours, min_items=1_000.0, has_zone=True)
    assert (kinds == kinds[:, :1]).all()


@pytest.mark.parametrize("wave", [0.0, 0.02])
def test_a_week_without_a_pattern_is_one_kind(wave: float) -> None:
    """Independent days, and days that vary more than their items do."""
    found = [
        find_day_kinds(*draw((0.0,) * 7, seed=seed, days=14, wave=wave), min_items=1_000.0, has_zone=False).max()
        for seed in range(20)
    ]
    assert sum(count > 0 for count in found) <= 1


@pytest.mark.parametrize("days", [2, 3, 5])
def test_few_days_are_one_kind(days: int) -> None:
    assert not find_day_kinds(*draw(WEEKEND, days=days), min_items=1_000.0, has_zone=False).any()


def test_a_kind_of_too_few_items_is_none() -> None:
    days, hours = draw(WEEKEND)
    assert not find_day_kinds(days, hours, min_items=hours.sum(), has_zone=False).any()


def test_days_that_are_missing_leave_the_others() -> None:
    days, hours = draw(WEEKEND, days=21)
    there = np.array([day for day in range(21) if day not in {2, 6, 9, 10}])
    assert find_day_kinds(days[there], hours[there], min_items=1_000.0, has_zone=False).tolist() == kinds_of(
        WEEKEND, 24
    )


def test_hours_without_items_say_nothing() -> None:
    days, hours = draw(WEEKEND)
    hours[:, :6] = 0.0
    assert find_day_kinds(days, hours, min_items=1_000.0, has_zone=True).tolist() == kinds_of(WEEKEND, 24)
    assert not find_day_kinds(days, 0.0 * hours, min_items=0.0, has_zone=False).any()
