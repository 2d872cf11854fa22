from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.sketch.moments import (
    MANY,
    ExactSum,
    Moments,
    convert_to_exact_units,
    format_exact_sum,
    parse_exact_sum,
    sum_exactly,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, min_size=1, max_size=30))
def test_the_sum_is_correctly_rounded(values: list[float]) -> None:
    try:
        expected = math.fsum(values)
    except OverflowError:
        return
    assert Moments.from_values(values).sum == expected


@given(st.lists(FLOATS, min_size=1, max_size=30), st.integers(0, 200))
def test_an_array_is_added_up_as_one_by_one(values: list[float], more: int) -> None:
    numbers = values * (1 + more // len(values))
    array = np.array(numbers)
    assert Moments.from_values(array) == Moments.from_values(numbers)
    assert sum_exactly(array) == sum(map(convert_to_exact_units, numbers))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [1, MANY])
def test_an_array_that_is_not_finite_is_refused(value: float, size: int) -> None:
    with pytest.raises(ValueError, match="has no exact sum"):
        Moments.from_values(np.append(np.ones(size), value))


def test_what_floats_lose_is_kept() -> None:
    assert Moments.from_values([1e300, 1.0, -1e300]).sum == 1.0


def test_a_sum_beyond_floats_is_infinite_and_its_mean_is_not() -> None:
    moments = Moments.from_values([1.7e308, 1.7e308])
    assert (moments.sum, moments.mean) == (math.inf, 1.7e308)


def test_no_numbers() -> None:
    moments = Moments.from_values([])
    assert moments == Moments()
    assert math.isnan(moments.mean)
    assert moments.sum == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_exact_sum(value: float) -> None:
    with pytest.raises(ValueError, match="no exact sum"):
        convert_to_exact_units(value)
    assert Moments.from_total(count=3, total=value).sum == 0.0


@given(st.lists(FLOATS, max_size=5))
def test_the_text_of_a_sum_is_exact(values: list[float]) -> None:
    units = sum(map(convert_to_exact_units, values))
    assert parse_exact_sum(format_exact_sum(units)) == units


def test_the_text_is_a_hexadecimal_float() -> None:
    assert format_exact_sum(convert_to_exact_units(-1.5)) == "-0x3p-1"
    assert float.fromhex(format_exact_sum(convert_to_exact_units(0.1))) == 0.1
    assert format_exact_sum(0) == "0x0p+0"


@pytest.mark.parametrize("text", ["", "12", "0x1p-9999", "0x1p+99999999", "p", "0xzzp+1"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_exact_sum(text)


def test_since_leaves_the_extremes_of_the_running_total() -> None:
    total = Moments.from_values([1.0, 5.0, 9.0])
    assert total.subtract(Moments.from_values([1.0])) == Moments(
        count=2, exact_sum=ExactSum(convert_to_exact_units(14.0)), minimum=1.0, maximum=9.0
    )
