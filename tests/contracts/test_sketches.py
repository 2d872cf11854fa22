"""What every sketch promises: merging is associative, commutative and exact, and a document is the sketch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import MANY, Moments
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PARTS = st.lists(st.lists(FLOATS, max_size=12), min_size=1, max_size=5)


def spread(seed: int, size: int, octaves: int) -> list[float]:
    """Positive and negative values over so many powers of two, more than array arithmetic or a scale has room for."""
    rng = np.random.default_rng(seed)
    values: NDArray[np.float64] = rng.choice((-1.0, 1.0), size) * np.exp2(rng.uniform(-octaves, octaves, size))
    return list(map(float, values))


LARGE_PARTS = st.lists(
    st.one_of(
        st.lists(FLOATS, max_size=4),
        st.builds(
            spread, st.integers(0, 99), st.sampled_from((MANY - 1, MANY, 3 * MANY)), st.sampled_from((1, 30, 1000))
        ),
    ),
    min_size=2,
    max_size=6,
)


def stream_sketch(values: list[float]) -> StreamSketch:
    """Numbers in two ways, classes and missing values at once."""
    half = len(values) // 2
    histogram = Histogram.from_values(np.array(values[:half]), (-1.0, 0.0, 1e3))
    return StreamSketch(
        exponential=ExponentialHistogram.from_values(np.array(values[half:])),
        explicit={histogram.bounds: histogram},
        categories=CategoryCounts(counts={f"{value:.0e}": 1 for value in values}),
        missing=len(values),
    )


MAKERS: dict[str, Callable[[list[float]], Any]] = {
    "moments": Moments.from_values,
    "histogram": lambda values: Histogram.from_values(np.array(values), (-1.0, 0.0, 0.5, 1e10)),
    "exponential": lambda values: ExponentialHistogram.from_values(np.array(values)),
    "categories": lambda values: CategoryCounts(counts={f"{value:.0e}": 1 for value in values}),
    "stream_sketch": stream_sketch,
}
SKETCHES = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
DOCUMENTED = pytest.mark.parametrize(
    ("make", "kind"),
    [
        (MAKERS["histogram"], Histogram),
        (MAKERS["exponential"], ExponentialHistogram),
        (MAKERS["stream_sketch"], StreamSketch),
    ],
)
WHOLE = ("moments", "histogram", "exponential")


@SKETCHES
@settings(deadline=None, max_examples=60)
@given(parts=PARTS, seed=st.randoms(use_true_random=False))
def test_merge_is_the_same_in_any_order_and_grouping(
    make: Callable[[list[float]], Any], parts: list[list[float]], seed: Any
) -> None:
    sketches = [make(part) for part in parts]
    left = reduce(lambda a, b: a.merge(b), sketches)
    right = reduce(lambda a, b: b.merge(a), reversed(sketches))
    seed.shuffle(sketches)
    assert left == right == reduce(lambda a, b: a.merge(b), sketches)


def written(sketch: Any) -> str:
    """All that a sketch holds, to the bit."""
    document = dict(sketch.counts) if isinstance(sketch, CategoryCounts) else sketch.to_dict()
    return json.dumps(document, sort_keys=True)


@SKETCHES
@settings(deadline=None, max_examples=30)
@given(parts=LARGE_PARTS, random=st.randoms(use_true_random=False))
def test_any_tree_of_merges_is_the_same_to_the_bit(
    make: Callable[[list[float]], Any], parts: list[list[float]], random: Any
) -> None:
    sketches = [make(part) for part in parts]
    expected = written(reduce(lambda a, b: a.merge(b), sketches))
    while len(sketches) > 1:
        random.shuffle(sketches)
        sketches.append(sketches.pop().merge(sketches.pop()))
    assert written(sketches[0]) == expected


@pytest.mark.parametrize("name", WHOLE)
@settings(deadline=None, max_examples=60)
@given(parts=PARTS)
def test_merge_of_parts_is_the_sketch_of_the_whole(name: str, parts: list[list[float]]) -> None:
    make = MAKERS[name]
    merged = reduce(lambda a, b: a.merge(b), [make(part) for part in parts])
    assert merged == make([value for part in parts for value in part])


@pytest.mark.parametrize("name", ["histogram", "exponential"])
@settings(deadline=None, max_examples=60)
@given(before=st.lists(FLOATS, max_size=12), added=st.lists(FLOATS, max_size=12))
def test_since_gives_back_what_was_merged(name: str, before: list[float], added: list[float]) -> None:
    make = MAKERS[name]
    total = make(before).merge(make(added))
    difference = total.subtract(make(before))
    assert difference.total == len(added)
    assert difference.moments.exact_sum == make(added).moments.exact_sum
    assert make(before).merge(difference).counts.tolist() == total.counts.tolist()


@DOCUMENTED
@settings(deadline=None, max_examples=60)
@given(values=st.lists(FLOATS, max_size=12))
def test_a_document_is_the_sketch(make: Callable[[list[float]], Any], kind: Any, values: list[float]) -> None:
    sketch = make(values)
    assert kind.from_dict(json.loads(json.dumps(sketch.to_dict(), allow_nan=False))) == sketch


@pytest.mark.parametrize("name", ["histogram", "exponential"])
@settings(deadline=None, max_examples=60)
@given(values=st.lists(FLOATS, max_size=12))
def test_the_bytes_are_the_sketch(name: str, values: list[float]) -> None:
    sketch = MAKERS[name](values)
    assert decode_record(encode_record(sketch), type(sketch)) == sketch
