from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.explain import describe, percent, quantile
from otel_mlmon.processor.window.binning import name_ranges
from otel_mlmon.processor.window.window import Bins
from otel_mlmon.semconv import MISSING, OTHER

NAN = float("nan")
EDGES = (0.0, 1.0, 2.0, 3.0, 4.0)
AGE = Bins(names=(*name_ranges(EDGES), MISSING), is_ordered=True, edges=EDGES)
WAS = (0.0, 0.25, 0.25, 0.25, 0.25, 0.0, 0.0)


def test_a_feature_that_grew_and_went_missing_is_told_in_its_own_unit() -> None:
    now = (0.0, 0.0, 0.1, 0.2, 0.25, 0.25, 0.2)
    assert describe("input.age", AGE, WAS, now, means=(2.0, 3.4)) == (
        "mean 2 → 3.4",
        "middle half 1 … 3 → 2.5 … > 4",
        "missing 0 % → 20 %",
        "25 % higher than any before (> 4)",
    )


def test_images_are_told_by_their_looks() -> None:
    edges = (0.0, 320.0, 640.0, 1280.0)
    bins = Bins(names=(*name_ranges(edges), MISSING), is_ordered=True, edges=edges)
    told = describe("input.image.width", bins, (0, 0, 1, 0, 0, 0), (0, 1, 0, 0, 0, 0), means=(640, 320))
    assert told == ("images are less wide", "mean 640 → 320 px", "middle half 400 … 560 → 80 … 240 px")
    dim = describe("input.image.brightness", AGE, WAS, (0.9, 0.1, 0, 0, 0, 0, 0), means=(0.31, 0.17))
    assert dim == (
        "images are darker",
        "mean 0.31 → 0.17",
        "middle half 1 … 3 → ≤ 0",
        "90 % lower than any before (≤ 0)",
    )


def test_classes_are_told_by_how_much_they_moved() -> None:
    bins = Bins(names=("ham", "spam", "eggs", "tea", OTHER), is_ordered=False)
    told = describe("prediction.label", bins, (0.5, 0.3, 0.1, 0.1, 0.0), (0.2, 0.31, 0.1, 0.0, 0.39), means=(NAN, NAN))
    assert told == ("all others: 0 % → 39 %", "class ham: 50 % → 20 %", "class tea: 10 % → 0 %", "1 is gone")
    colour = Bins(names=("red", OTHER, MISSING), is_ordered=False)
    assert describe("input.colour", colour, (0.9, 0.1, 0), (0.5, 0.1, 0.4), means=(NAN, NAN)) == (
        "value red: 90 % → 50 %",
        "missing: 0 % → 40 %",
    )


def test_where_nothing_moved_or_was_counted_nothing_is_told() -> None:
    assert describe("input.age", AGE, WAS, WAS, means=(2.0, 2.0001)) == ()
    assert describe("input.age", AGE, WAS, (0.0,) * 7, means=(2.0, NAN)) == ()
    constant = Bins(names=("any value", MISSING), is_ordered=True)
    assert describe("input.age", constant, (1.0, 0.0), (0.0, 1.0), means=(NAN, NAN)) == ("missing 0 % → 100 %",)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.00001, "< 0.01 %"), (0.004, "0.4 %"), (0.0123, "1.2 %"), (0.0996, "10 %"), (1.0, "100 %")],
)
def test_shares_are_told_to_two_digits(share: float, text: str) -> None:
    assert percent(share) == text


@given(st.lists(st.floats(0.001, 3.999), min_size=1, max_size=60), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=100)
def test_a_quantile_from_bins_is_in_the_bin_of_the_true_one(values: list[float], q: float) -> None:
    bins = Bins(names=name_ranges(EDGES), is_ordered=True, edges=EDGES)
    counts = np.bincount(np.searchsorted(EDGES, values), minlength=6)
    found = quantile(bins, (counts / counts.sum()).tolist(), q)
    truth = float(np.quantile(values, q, method="inverted_cdf"))
    assert math.ceil(truth) - 1 - 1e-9 <= found <= math.ceil(truth) + 1e-9


def test_a_quantile_beyond_the_edges_is_open() -> None:
    assert quantile(AGE, (1.0, 0, 0, 0, 0, 0, 0), 0.5) == -math.inf
    assert quantile(AGE, (0, 0, 0, 0, 0, 1.0, 0), 0.5) == math.inf
    assert math.isnan(quantile(AGE, (0, 0, 0, 0, 0, 0, 1.0), 0.5))
