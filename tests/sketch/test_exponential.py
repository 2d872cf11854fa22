from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_mlmon.sketch.exponential import (
    BIAS,
    MAX_BUCKETS,
    MAX_HIDDEN_SCALE,
    MAX_SCALE,
    MIN_SCALE,
    ExponentialHistogram,
    compute_bucket_indices,
    compute_bucket_middles,
    compute_bucket_ordinals,
    compute_bucket_range,
    compute_upper_bounds,
)
from otel_mlmon.sketch.moments import Moments

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MAGNITUDES = st.floats(min_value=5e-324, max_value=1.7e308, exclude_min=False)


def sketch(*values: float) -> ExponentialHistogram:
    return ExponentialHistogram.from_values(np.array(values, dtype=np.float64))


@settings(deadline=None, max_examples=300)
@given(MAGNITUDES, st.integers(min_value=MIN_SCALE, max_value=6))
def test_a_magnitude_lies_in_its_bucket(magnitude: float, scale: int) -> None:
    index = int(compute_bucket_indices(np.array([magnitude]), scale)[0])
    low, high = compute_bucket_range(index + BIAS, scale)
    # The bounds are rounded themselves, by less than a part in 10^12.
    assert low * (1 - 1e-12) <= magnitude <= high * (1 + 1e-12)


@settings(deadline=None, max_examples=200)
@given(st.integers(min_value=-1074, max_value=1023), st.integers(min_value=MIN_SCALE, max_value=MAX_SCALE))
def test_a_power_of_two_is_the_upper_bound_of_its_bucket(power: int, scale: int) -> None:
    index = int(compute_bucket_indices(np.array([math.ldexp(1.0, power)]), scale)[0])
    assert index == ((power << scale) if scale >= 0 else -(-power >> -scale)) - 1


@settings(deadline=None, max_examples=200)
@given(MAGNITUDES, st.integers(min_value=MIN_SCALE + 1, max_value=MAX_SCALE))
def test_a_coarser_index_is_the_finer_one_halved(magnitude: float, scale: int) -> None:
    fine, coarse = (int(compute_bucket_indices(np.array([magnitude]), each)[0]) for each in (scale, scale - 1))
    assert fine >> 1 == coarse


@settings(deadline=None, max_examples=100)
@given(st.lists(NUMBERS, min_size=2, max_size=20, unique=True))
def test_ordinals_grow_with_values(values: list[float]) -> None:
    ordinals = compute_bucket_ordinals(np.array(sorted(values)), 3)
    assert (np.diff(ordinals) >= 0).all()


@settings(deadline=None, max_examples=100)
@given(st.lists(NUMBERS, max_size=20), st.integers(min_value=0, max_value=6))
def test_a_coarser_scale_is_counting_at_that_scale(values: list[float], steps: int) -> None:
    counted = sketch(*values)
    scale = max(MIN_SCALE, counted.scale - steps)
    coarse = counted.at_scale(scale)
    ordinals, counts = np.unique(compute_bucket_ordinals(np.array(values, dtype=np.float64), scale), return_counts=True)
    assert coarse.ordinals.tolist() == ordinals.tolist()
    assert coarse.counts.tolist() == counts.tolist()
    assert coarse.moments == counted.moments


@pytest.mark.parametrize(("octaves", "scale"), [(320, 0), (321, -1)])
def test_a_range_of_320_octaves_is_one_bucket_an_octave(octaves: int, scale: int) -> None:
    assert sketch(2.0**-160, 2.0 ** (octaves - 161)).scale == scale


def test_the_range_of_all_floats_fits() -> None:
    extremes = sketch(5e-324, 1.7e308, -5e-324, -1.7e308, 0.0)
    assert extremes.total == 5
    assert extremes.scale == -3
    assert np.abs(np.diff(extremes.ordinals[extremes.ordinals > 0])).max() < MAX_BUCKETS


def test_of_buckets_is_of_values() -> None:
    counted = ExponentialHistogram.from_buckets(
        scale=0,
        zero_count=2,
        positive_offset=0,
        positive_counts=np.array([1, 0, 3], dtype=np.int64),
        negative_offset=1,
        negative_counts=np.array([4], dtype=np.int64),
        moments=Moments(count=10),
    )
    # (1, 2] once, (4, 8] three times, [-4, -2) four times
    assert [compute_bucket_range(ordinal, 0) for ordinal in counted.ordinals.tolist()] == [
        (-4.0, -2.0),
        (0.0, 0.0),
        (1.0, 2.0),
        (4.0, 8.0),
    ]
    assert counted.counts.tolist() == [4, 2, 1, 3]


def test_a_finer_scale_cannot_be_had() -> None:
    counted = sketch(1.0, 1e9)
    with pytest.raises(ValueError, match="finer"):
        counted.at_scale(counted.scale + 1)


def test_a_running_total_that_fell_or_grew_finer_was_reset() -> None:
    wide, narrow = sketch(1.0, 1e300), sketch(1.0, 1.1)
    assert narrow.subtract(wide) is None
    assert sketch(1.0).subtract(sketch(1.0, 1.0)) is None
    assert sketch(1.0).subtract(sketch(2.0)) is None
    assert sketch().subtract(sketch(1.0)) is None


def test_a_bucket_of_which_nothing_is_left_is_removed() -> None:
    earlier, later = sketch(1.0, 8.0), sketch(2.0, 8.0)
    difference = earlier.merge(later).subtract(earlier)
    assert difference is not None
    remaining = later.at_scale(difference.scale)
    assert (difference.ordinals.tolist(), difference.counts.tolist()) == (remaining.ordinals.tolist(), [1, 1])
    nothing = earlier.subtract(earlier)
    assert nothing is not None
    assert (nothing.ordinals.tolist(), nothing.counts.tolist(), nothing.total) == ([], [], 0)
    assert ExponentialHistogram.from_dict(difference.to_dict()) == difference


def test_an_empty_earlier_state_takes_nothing_away() -> None:
    total = sketch(1.0, 2.0)
    assert total.subtract(sketch()) == total


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), max_size=30), st.lists(st.integers(-3000, 3000), max_size=5))
def test_bins_over_ordinals_lose_nothing(values: list[float], raw_cuts: list[int]) -> None:
    cuts = np.array(sorted(cut + BIAS for cut in raw_cuts), dtype=np.int64)
    counts = sketch(*values).rebin(cuts)
    assert counts.shape == (cuts.size + 1,)
    assert counts.sum() == len(values)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(min_value=0.5, max_value=1e3), min_size=1, max_size=50),
    st.floats(min_value=0, max_value=1),
)
def test_a_quantile_is_within_a_bucket_of_the_true_one(values: list[float], q: float) -> None:
    counted = sketch(*values)
    true = sorted(values)[max(math.ceil(q * len(values)) - 1, 0)]
    assert min(values) <= counted.quantile(q) <= max(values)
    assert counted.quantile(q) == pytest.approx(true, rel=2.0 ** (2.0**-counted.scale) - 1)


def test_quantiles_at_the_ends() -> None:
    assert math.isnan(sketch().quantile(0.5))
    assert sketch(0.0, 0.0).quantile(0.5) == 0.0
    assert sketch(5.0).quantile(0.5) == 5.0
    assert sketch(1.7e308, 1e-300).quantile(1.0) <= 1.7e308


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 21}, "scale 21"),
        ({"scale": "3"}, "not a whole number"),
        ({"ordinals": [1.5, 2]}, "not a whole number"),
        ({"ordinals": [2, 1]}, "do not increase"),
        ({"ordinals": [1, 1]}, "do not increase"),
        ({"ordinals": [1]}, "not one count"),
        ({"counts": [0, 1]}, "above 0"),
        ({"ordinals": [BIAS, BIAS + 5000]}, "wider"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ExponentialHistogram.from_dict(sketch(1.0, 1.1).to_dict() | change)


def buckets(counts: int, *, negative: int = 0) -> ExponentialHistogram:
    """So many buckets of the positive and of the negative range, one value each, at scale 3."""
    return ExponentialHistogram.from_buckets(
        scale=3,
        zero_count=0,
        positive_offset=0,
        positive_counts=np.ones(counts, dtype=np.int64),
        negative_offset=0,
        negative_counts=np.ones(negative, dtype=np.int64),
        moments=Moments(count=counts + negative),
    )


@pytest.mark.parametrize(
    ("positive", "negative", "scale", "size"),
    [
        (MAX_BUCKETS, 0, 3, MAX_BUCKETS),
        (MAX_BUCKETS + 1, 0, 2, MAX_BUCKETS // 2 + 1),
        (MAX_BUCKETS, MAX_BUCKETS, 3, 2 * MAX_BUCKETS),
        (1, MAX_BUCKETS + 1, 2, MAX_BUCKETS // 2 + 2),
    ],
)
def test_the_scale_is_reduced_from_the_first_bucket_too_many(
    positive: int, negative: int, scale: int, size: int
) -> None:
    counted = buckets(positive, negative=negative)
    assert (counted.scale, counted.ordinals.size, counted.total) == (scale, size, positive + negative)


@pytest.mark.parametrize(("start", "scale"), [(MAX_BUCKETS - 1, 3), (MAX_BUCKETS, 2)])
def test_a_merge_reduces_the_scale_from_the_first_bucket_too_many(start: int, scale: int) -> None:
    far = ExponentialHistogram(scale=3, ordinals=np.array([BIAS + start]), counts=np.array([1]))
    assert buckets(1).merge(far).scale == scale


@settings(deadline=None, max_examples=100)
@given(st.lists(NUMBERS, min_size=1, max_size=20), st.integers(2, 4))
def test_histograms_of_the_same_buckets_merge_to_that_of_all_values(values: list[float], parts: int) -> None:
    assert ExponentialHistogram.merge_all([sketch(*values)] * parts) == sketch(*values * parts)


@pytest.mark.parametrize("counts", [[1, 1], [2, 0]])
def test_same_buckets_that_are_too_wide_or_empty_are_merged_all_the_same(counts: list[int]) -> None:
    wide = ExponentialHistogram(
        scale=3, ordinals=np.array([BIAS, BIAS + MAX_BUCKETS]), counts=np.array(counts, dtype=np.int64)
    )
    merged = wide.merge(wide)
    assert (merged.scale, merged.counts.tolist()) == ((2, [2, 2]) if all(counts) else (3, [4]))


@pytest.mark.parametrize("scale", [MIN_SCALE, MAX_SCALE])
def test_the_extreme_scales_are_documents(scale: int) -> None:
    counted = ExponentialHistogram(scale=scale, ordinals=np.array([BIAS]), counts=np.array([1]))
    assert ExponentialHistogram.from_dict(counted.to_dict()).scale == scale
    beyond = counted.to_dict() | {"scale": scale + (1 if scale > 0 else -1)}
    with pytest.raises(ValueError, match="is not within"):
        ExponentialHistogram.from_dict(beyond)


@pytest.mark.parametrize(("width", "is_refused"), [(MAX_BUCKETS, False), (MAX_BUCKETS + 1, True)])
def test_a_document_may_be_as_wide_as_a_histogram(width: int, *, is_refused: bool) -> None:
    document = buckets(1).to_dict() | {"ordinals": [BIAS, BIAS + width - 1], "counts": [1, 1]}
    if is_refused:
        with pytest.raises(ValueError, match="wider"):
            ExponentialHistogram.from_dict(document)
    else:
        assert ExponentialHistogram.from_dict(document).total == 2


def test_values_of_the_range_of_a_bucket_are_bounded_by_it() -> None:
    assert compute_bucket_range(BIAS - 1, 0) == (0.5, 1.0)
    assert compute_bucket_range(-BIAS, 1) == (-math.sqrt(2.0), -1.0)
    assert compute_bucket_range(BIAS + 1023, 0) == (2.0**1023, math.inf)


@given(st.lists(st.integers(-BIAS - 3000, BIAS + 3000)), st.integers(min_value=MIN_SCALE, max_value=6))
@example([BIAS - 2000, -BIAS + 3, 0, BIAS + 1024], 0)
def test_upper_bounds_of_buckets_are_those_of_their_ranges(ordinals: list[int], scale: int) -> None:
    bounds = [compute_bucket_range(ordinal, scale)[1] + 0.0 for ordinal in ordinals]
    assert list(map(repr, compute_upper_bounds(ordinals, scale))) == list(map(repr, bounds))


def test_bins_over_ordinals_include_their_upper_cut() -> None:
    counted = buckets(3)
    assert counted.rebin(np.array([BIAS, BIAS + 1], dtype=np.int64)).tolist() == [1, 1, 1]


def test_a_quantile_is_the_middle_of_its_bucket_within_the_extremes() -> None:
    counted = ExponentialHistogram(scale=0, ordinals=np.array([BIAS, BIAS + 1]), counts=np.array([1, 3]))
    assert [counted.quantile(q) for q in (0.0, 0.25, 0.26, 1.0)] == [1.5, 1.5, 3.0, 3.0]
    bounded = ExponentialHistogram(
        scale=0, ordinals=counted.ordinals, counts=counted.counts, moments=Moments(count=4, minimum=1.75, maximum=2.5)
    )
    assert [bounded.quantile(q) for q in (0.0, 1.0)] == [1.75, 2.5]


def test_what_was_added_is_found_at_the_scale_of_the_total() -> None:
    before, total = sketch(1.5, 1.5), sketch(1.5, 1.5, 1e300, -3.0)
    added = total.subtract(before)
    assert added is not None
    assert (added.scale, added.total, added.moments.count) == (total.scale, 2, 2)
    assert before.merge(added) == total


def test_equality_is_of_scale_buckets_and_moments() -> None:
    base = buckets(2)
    assert base == buckets(2)
    assert base != buckets(3)
    assert base != ExponentialHistogram(scale=2, ordinals=base.ordinals, counts=base.counts, moments=base.moments)
    assert base != ExponentialHistogram(scale=3, ordinals=base.ordinals + 1, counts=base.counts, moments=base.moments)
    assert base != ExponentialHistogram(scale=3, ordinals=base.ordinals, counts=base.counts + 1, moments=base.moments)
    assert base != ExponentialHistogram(scale=3, ordinals=base.ordinals, counts=base.counts, moments=Moments(count=3))
    assert (base == "buckets") is False


def test_negative_buckets_are_in_the_order_of_their_values() -> None:
    counted = ExponentialHistogram.from_buckets(
        scale=0,
        zero_count=0,
        positive_offset=0,
        positive_counts=np.zeros(0, dtype=np.int64),
        negative_offset=0,
        negative_counts=np.array([5, 0, 7], dtype=np.int64),
        moments=Moments(count=12),
    )
    assert (counted.ordinals.tolist(), counted.counts.tolist()) == ([-BIAS - 2, -BIAS], [7, 5])


def test_the_smallest_scale_is_never_reduced() -> None:
    wide = ExponentialHistogram.from_buckets(
        scale=MIN_SCALE,
        zero_count=0,
        positive_offset=0,
        positive_counts=np.ones(MAX_BUCKETS + 1, dtype=np.int64),
        negative_offset=0,
        negative_counts=np.zeros(0, dtype=np.int64),
        moments=Moments(count=MAX_BUCKETS + 1),
    )
    assert (wide.scale, wide.ordinals.size) == (MIN_SCALE, MAX_BUCKETS + 1)


def test_a_histogram_begins_empty() -> None:
    empty = ExponentialHistogram()
    assert (empty.scale, empty.ordinals.size, empty.counts.size, empty.total) == (MAX_SCALE, 0, 0, 0)
    assert empty == sketch()


def test_buckets_of_the_wire_become_ordinals_with_the_zeros_between_the_signs() -> None:
    histogram = ExponentialHistogram.from_buckets(
        scale=0,
        zero_count=5,
        positive_offset=1,
        positive_counts=np.array([2, 0, 3], dtype=np.int64),
        negative_offset=-1,
        negative_counts=np.array([0, 4], dtype=np.int64),
        moments=Moments(),
    )
    assert histogram.ordinals.tolist() == [-BIAS, 0, BIAS + 1, BIAS + 3]
    assert histogram.counts.tolist() == [4, 5, 2, 3]


@settings(deadline=None, max_examples=100)
@given(st.lists(NUMBERS, max_size=20), st.lists(NUMBERS, max_size=20))
def test_hidden_values_of_parts_merge_to_those_of_all(left: list[float], right: list[float]) -> None:
    hidden = sketch(*left, *right).hide_values()
    assert hidden == sketch(*left).hide_values().merge(sketch(*right).hide_values()).hide_values()
    assert hidden.scale <= MAX_HIDDEN_SCALE
    assert (hidden.moments.minimum, hidden.moments.maximum) == (math.inf, -math.inf)


@pytest.mark.parametrize("value", [5e-324, -5e-324, 1.7e308, -1.7e308, 0.0, 1.0, 2.0, -4.0])
@pytest.mark.parametrize("scale", [MAX_HIDDEN_SCALE, MAX_SCALE])
def test_the_middle_of_an_extreme_value_is_finite_and_of_its_sign(value: float, scale: int) -> None:
    (middle,) = compute_bucket_middles(compute_bucket_ordinals(np.array([value]), scale), scale).tolist()
    assert math.isfinite(middle)
    assert np.sign(middle) == np.sign(value)
    assert middle == pytest.approx(value, rel=1e-3)


def test_the_middle_of_a_bucket_beyond_all_numbers_is_a_number() -> None:
    far = np.array([BIAS + (1 << 35), -(BIAS + (1 << 35)), 0])
    largest = float(np.finfo(np.float64).max)
    assert compute_bucket_middles(far, MAX_SCALE).tolist() == [largest, -largest, 0.0]
