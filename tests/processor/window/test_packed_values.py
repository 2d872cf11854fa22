"""Values that are packed are unpacked bit for bit, and those that contradict each other are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.packed_numbers import PackedSums, pack_ints
from otel_mlmon.processor.window.packed_values import PackedValues, pack_values, unpack_values
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.table import PointValue

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=8).map(np.array)
BOUNDS = st.sampled_from([(), (0.0,), (-1.0, 2.0, 1e9)])
SKETCHES = st.one_of(
    st.builds(lambda numbers, bounds: Histogram.from_values(numbers.astype(float), bounds), NUMBERS, BOUNDS),
    NUMBERS.map(lambda numbers: ExponentialHistogram.from_values(numbers.astype(float))),
)
VALUES = st.one_of(
    st.integers(0, 2**53).map(lambda count: PointValue(counter=count)), SKETCHES.map(PointValue.from_sketch)
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6))
def test_values_are_unpacked_as_they_were(values: list[PointValue]) -> None:
    columns = [(value.table, [value.number]) for value in values]
    packed = decode_record(encode_record(pack_values(columns)), PackedValues)
    assert unpack_values(packed) == values


@pytest.mark.parametrize(
    "fields",
    [
        {"sums": PackedSums((0,), 8, b"")},
        {"sizes": [3]},
        {"sizes": [-2, 4]},
        {"sizes": [2, 1], "counts": pack_ints(np.array([1, 1, 1]))},
        {"kinds": bytes([2, 2])},
        {"kinds": bytes([1])},
        {"kinds": bytes([0, 2])},
        {"firsts": []},
        {"steps": pack_ints(np.array([1, 1, 1]))},
        {"counts": ("<f8", b"")},
        {"scales": []},
    ],
)
def test_values_that_contradict_each_other_are_refused(fields: dict[str, Any]) -> None:
    values = [PointValue.from_sketch(ExponentialHistogram.from_values(np.array([1.0, 3.0])))]
    with pytest.raises(ValueError, match=r"."):
        unpack_values(pack_values([(value.table, [value.number]) for value in values])._replace(**fields))
