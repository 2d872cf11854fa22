"""A table of sketches does what the sketches do, bit for bit."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.table import AnyHistogram, PointValue, SketchTable

VALUES = st.lists(
    st.sampled_from([-1e9, -3.0, -1.0, 0.0, 5e-324, 1e-300, 1.0, 1.01, 1.1, 2.0, 1e5, 1e300]), max_size=7
).map(lambda values: np.array(values, dtype=np.float64))
HISTOGRAMS = st.builds(Histogram.from_values, VALUES, st.sampled_from([(), (0.5, 1.0)]))
EXPONENTIALS = VALUES.map(ExponentialHistogram.from_values)
COARSE = VALUES.map(lambda values: ExponentialHistogram.from_values(values).at_scale(-5))
SKETCHES = st.one_of(HISTOGRAMS, EXPONENTIALS, COARSE)


def bits(sketches: list[AnyHistogram]) -> list[str]:
    """Sketches as texts that compare, in an order of their own."""
    return sorted(map(repr, sketches))


def form(sketch: AnyHistogram) -> str:
    """What merges with each other."""
    return str(sketch.bounds) if isinstance(sketch, Histogram) else "exponential"


def merge_all(sketches: list[AnyHistogram]) -> AnyHistogram:
    """As the sketches merge."""
    histograms = [sketch for sketch in sketches if isinstance(sketch, Histogram)]
    if histograms:
        return Histogram.merge_all(histograms)
    return ExponentialHistogram.merge_all([part for part in sketches if isinstance(part, ExponentialHistogram)])


def build_merged(table: SketchTable, keys: list[Any]) -> dict[Any, list[AnyHistogram]]:
    """The sketches of the rows that rows with equal keys merge to."""
    merged, rows = table.merge_rows(keys)
    return {key: [merged.build_sketch(row) for row in group] for key, group in rows.items()}


@settings(deadline=None)
@given(st.lists(st.tuples(SKETCHES, st.integers(0, 2), st.booleans()), max_size=12))
def test_rows_are_the_sketches_and_merge_as_they_do(entries: list[tuple[AnyHistogram, int, bool]]) -> None:
    sketches = [sketch for sketch, _, _ in entries]
    table = SketchTable.from_sketches(sketches)
    assert [table.build_sketch(row) for row in range(len(sketches))] == sketches
    merged = build_merged(table, [key for _, key, _ in entries])
    assert merged.keys() == {key for _, key, _ in entries}
    for key, parts in merged.items():
        group = sorted((sketch for sketch, other, _ in entries if other == key), key=form)
        assert bits(parts) == bits([merge_all(list(same)) for _, same in groupby(group, key=form)])
    chosen = [row for row, (_, _, is_chosen) in enumerate(entries) if is_chosen]
    gathered = SketchTable.gather_rows([(table, row) for row in chosen])
    assert [gathered.build_sketch(row) for row in range(len(chosen))] == [sketches[row] for row in chosen]


def test_a_table_whose_rows_are_all_gathered_is_itself() -> None:
    table = SketchTable.from_sketches([Histogram.from_values(np.array([1.0]), ())] * 3)
    assert SketchTable.gather_rows([(table, 0), (table, 1), (table, 2)]) is table
    assert SketchTable.gather_rows([(table, 0), (table, 1)]) is not table
    assert SketchTable.gather_rows([]).numbers == []


@settings(deadline=None)
@given(st.lists(st.tuples(SKETCHES, SKETCHES), max_size=8))
def test_a_difference_that_is_told_is_that_of_the_sketches(pairs: list[tuple[AnyHistogram, AnyHistogram]]) -> None:
    alike = [(merge_all([one, other]), one) for one, other in pairs if form(one) == form(other)]
    both = [*alike, *((earlier, later) for later, earlier in alike), *((one, one) for one, _ in pairs)]
    later = SketchTable.from_sketches([one for one, _ in both])
    earlier = SketchTable.from_sketches([other for _, other in both])
    layouts = zip(*(table.list_layouts(range(len(both))) for table in (later, earlier)), strict=True)
    rows = [row for row, (one, other) in enumerate(layouts) if one == other]
    table, is_told = SketchTable.gather_rows([(later, row) for row in rows]).subtract(
        SketchTable.gather_rows([(earlier, row) for row in rows])
    )
    for position, (row, is_good) in enumerate(zip(rows, is_told, strict=True)):
        difference = PointValue(None, later, row).subtract(PointValue(None, earlier, row))
        if is_good:
            assert difference is not None
            assert repr(table.build_sketch(position)) == repr(difference.sketch)
        elif difference is not None:
            (one, end), (other, other_end) = later.starts[row : row + 2], earlier.starts[row : row + 2]
            is_moved = not np.array_equal(later.ordinals[one:end], earlier.ordinals[other:other_end])
            assert is_moved or one == end


def test_buckets_that_are_far_apart_are_merged_at_a_coarser_scale() -> None:
    parts = [ExponentialHistogram.from_values(np.array([value])) for value in (1e-300, 1.0, 1e300)]
    merged = build_merged(SketchTable.from_sketches(parts), ["a", "a", "a"])
    whole = ExponentialHistogram.merge_all(parts)
    assert merged == {"a": [whole]}
    assert parts[0].scale > whole.scale


@pytest.mark.parametrize("sketch", [3, Histogram.from_values(np.array([1.0]), (2.0,))])
def test_a_value_is_the_same_in_whatever_table_it_is(sketch: AnyHistogram | int) -> None:
    value = PointValue.from_sketch(sketch)
    assert value.sketch == sketch
    assert value == PointValue.from_sketch(sketch)
    assert value != PointValue.from_sketch(4)
    assert value != sketch
