"""The shares of a stream at each time of the week."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect.cycle_statistics import QUARTERS
from otel_mlmon.processor.detect.state import CycleDay
from otel_mlmon.processor.detect.week_model import SHRINKAGE, WeekModel, find_week_residuals, fit_week

MONDAY = 4
WORK, REST = np.array([600, 400]), np.array([400, 600])


def build(days: int, *, seed: int = 1, per_slot: float = 1.0) -> list[CycleDay]:
    rng = np.random.default_rng(seed)
    return [
        CycleDay(
            day=MONDAY + day,
            counts=rng.poisson(per_slot * (REST if day % 7 >= 5 else WORK), (QUARTERS, 2)).astype(np.int32),
        )
        for day in range(days)
    ]


def fit(days: list[CycleDay]) -> WeekModel:
    model = fit_week(days, effect=1.0, is_smoothed=False, has_zone=True)
    assert model is not None
    return model


def test_each_kind_has_its_shares_and_sizes() -> None:
    days = build(14)
    model = fit(days)
    assert model.kinds[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert model.day_counts.tolist() == [2] * 7
    weekend = np.sum([day.counts for day in days if (day.day - MONDAY) % 7 >= 5], axis=0)
    assert model.sizes[1] == pytest.approx(weekend.sum(1) + SHRINKAGE)
    pooled = (weekend.sum(0) + 0.5) / (weekend.sum() + 1)
    assert model.shares[1] == pytest.approx((weekend + SHRINKAGE * pooled) / model.sizes[1][:, None])
    assert model.effects == pytest.approx([1.0, 1.0], abs=0.3)
    assert model.forgiven.max() < 0.03


def test_a_weekday_is_known_that_was_there_twice_or_is_as_most() -> None:
    model = fit(build(7))
    assert [model.is_known(weekday, 40) for weekday in range(7)] == [True] * 5 + [False] * 2
    assert all(fit(build(14)).is_known(weekday, 40) for weekday in range(7))
    assert [fit(build(3)).is_known(weekday, 40) for weekday in (2, 3)] == [True, False]


def test_the_shares_of_a_week_are_those_of_all_its_days() -> None:
    model = fit(build(14))
    assert model.compute_mean_shares() == pytest.approx((5 * WORK + 2 * REST) / 7_000, abs=0.003)


def test_laid_around_another_reference_it_keeps_its_shape() -> None:
    model = fit(build(14))
    laid = model.shift_to_reference(model.compute_mean_shares(), np.array([0.5, 0.5]))
    odds = model.shares[..., 0] / model.shares[..., 1]
    laid_odds = laid.shares[..., 0] / laid.shares[..., 1]
    base = model.compute_mean_shares()
    assert laid.shares.sum(-1) == pytest.approx(1.0)
    assert laid_odds == pytest.approx(odds * base[1] / base[0])


def test_residuals_vary_as_if_the_cycle_were_known() -> None:
    days = build(14)
    pairs = find_week_residuals(days, fit(days))
    assert len(pairs) == 14 * QUARTERS
    ratios = [(left**2).sum() / (counts.sum() * 2 * 0.24) for counts, left in pairs]
    assert float(np.mean(ratios)) == pytest.approx(1.0, abs=0.1)


def test_too_few_days_or_items_make_no_model() -> None:
    assert fit_week(build(1), effect=1.0, is_smoothed=False, has_zone=False) is None
    assert fit_week(build(3), effect=1_000.0, is_smoothed=False, has_zone=False) is None


def test_a_weekday_that_was_odd_once_is_not_known_and_has_a_distance() -> None:
    days = build(5)
    shape = days[4].counts.shape
    counts = np.random.default_rng(9).poisson(WORK, shape).astype(np.int32)
    counts[60:] = np.random.default_rng(9).poisson([400, 600], (36, 2))
    model = fit([*days[:4], CycleDay(day=days[4].day, counts=counts)])
    # A fifth of the move goes into the mean, and two standard deviations are no distance.
    assert model.distances[[0, 1, 2, 3, 5, 6]].tolist() == [0.0] * 6
    assert 0.05 < model.distances[4] < 0.16
    assert not model.is_known(4, 0)
