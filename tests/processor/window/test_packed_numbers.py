"""Packed numbers and exact sums are unpacked as they were, and take few bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.packed_numbers import (
    PackedSums,
    ScaledSums,
    pack_ints,
    pack_sums,
    scale_sums,
    unpack_ints,
    unpack_sums,
    view_sums,
)
from otel_mlmon.sketch.moments import convert_to_exact_units


@given(st.lists(st.integers(0, 2**63 - 1), max_size=9))
def test_numbers_take_the_narrowest_type_that_holds_them(numbers: list[int]) -> None:
    width, blob = packed = pack_ints(np.array(numbers, dtype=np.int64))
    assert unpack_ints(packed).tolist() == numbers
    bits = max(numbers, default=0).bit_length()
    assert len(blob) == len(numbers) * next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    assert width in ("|u1", "<u2", "<u4", "<i8")


SUMS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False).map(convert_to_exact_units),
    st.tuples(st.integers(-(2**60), 2**60), st.sampled_from([0, 1_000, 2_000])).map(lambda sum_: sum_[0] << sum_[1]),
)


@given(st.lists(SUMS, max_size=6))
@example([2**63, 0])
@example([-(2**63)])
@example([1, 2**4000])
def test_sums_are_unpacked_as_they_were(sums: list[int]) -> None:
    packed = decode_record(encode_record(pack_sums(sums)), PackedSums)
    assert unpack_sums(packed, len(sums)) == sums
    assert len(packed.numbers) == len(sums) * packed.width


@pytest.mark.parametrize(
    "packed",
    [
        PackedSums((0,), 8, bytes(9)),
        PackedSums((0,), 0, b""),
        PackedSums((0, 0, 0), 8, bytes(16)),
        PackedSums((4097,), 8, bytes(16)),
        PackedSums((0, -1), 8, bytes(16)),
    ],
)
def test_sums_that_contradict_each_other_are_refused(packed: PackedSums) -> None:
    with pytest.raises(ValueError, match="sum"):
        unpack_sums(packed, 2)
    with pytest.raises(ValueError, match="sum"):
        unpack_sums(PackedSums((), 8, b""), 0)


def test_sums_of_a_like_size_take_a_few_bytes_each() -> None:
    sums = [convert_to_exact_units(value) for value in (1.5, -3e9, 0.1, 1e-6)]
    assert pack_sums(sums).width == 14
    assert pack_sums([*sums, convert_to_exact_units(1e-300)]).width == 7 + 1
    assert pack_sums([convert_to_exact_units(float(value)) for value in range(-50, 50)])[:2] == ((1074,), 8)


@given(st.lists(st.lists(SUMS, min_size=2, max_size=2), min_size=1, max_size=5))
@example([[0, 0], [3 << 1074, 1 << 1080], [1, 0]])
@example([[2**62, 0], [2**62, 5], [2, 2]])
@example([[-(2**63), 0], [-(2**63), -1], [0, 0]])
@example([[-(2**87), 1], [2**87 - 1, -1], [-1, -(2**64)]])
def test_rows_of_sums_are_added_exactly(rows: list[list[int]]) -> None:
    units = [number for row in rows for number in row]
    for sums in (scale_sums(units), view_sums(pack_sums(units), len(units))):
        assert sums.list_units() == units
        table = ScaledSums(sums.numbers.reshape(len(rows), 2, -1), sums.shift)
        assert table.add_rows() == [sum(column) for column in zip(*rows, strict=True)]
        assert [ScaledSums(numbers, sums.shift).list_units() for numbers in table.numbers] == rows
