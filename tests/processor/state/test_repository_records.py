"""What is stored comes back exactly as it was, whatever its type; what is damaged is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import ExactSum, Moments
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.types import Bools, Counts, Floats, ModelKey

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


class Step(NamedTuple):
    """A part of a value."""

    name: str
    share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A value with a field of every kind that a step may store."""

    model: ModelKey
    steps: tuple[Step, ...]
    state: Literal["ok", "drift"] = "ok"
    table: Floats
    flags: Bools
    by_name: Mapping[str, Counts]
    by_key: dict[ModelKey, int]
    sketch: StreamSketch | None = None
    bounds: int | tuple[float, ...] | None = None
    names: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfFloats:
    """A value with an array of one type."""

    array: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCounts:
    """The same with an array of another type."""

    array: Counts


@given(values=st.lists(FLOATS), labels=st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(1, 1 << 50)))
def test_a_tally_comes_back_bit_for_bit(values: list[float], labels: dict[str, int]) -> None:
    bounds = (-1.0, 0.0, 1e300)
    sketch = StreamSketch(
        exponential=ExponentialHistogram.from_values(np.array(values)),
        explicit={bounds: Histogram.from_values(np.array(values), bounds)},
        categories=CategoryCounts(counts=labels),
        missing=3,
    )
    for is_compressed in (False, True):
        stored = decode_record(encode_record(sketch, is_compressed=is_compressed), StreamSketch)
        assert stored == sketch
        assert type(stored.moments.exact_sum) is ExactSum


@given(shift=st.integers(0, 4096 - 120), mantissa=st.integers(-(1 << 120), 1 << 120))
def test_a_sum_of_any_size_is_exact(shift: int, mantissa: int) -> None:
    moments = Moments(count=1, exact_sum=ExactSum(mantissa << shift), minimum=-math.inf, maximum=math.inf)
    assert decode_record(encode_record(moments), Moments) == moments


def test_a_value_of_every_kind_comes_back() -> None:
    example = Example(
        model=ModelKey("m", "1", "production"),
        steps=(Step("a"), Step("b", math.inf)),
        state="drift",
        table=np.array([[0.1, math.nan], [math.inf, -0.0]]),
        flags=np.array([True, False]),
        by_name={"x": np.array([1, 1 << 62])},
        by_key={ModelKey("n"): 7},
        bounds=(0.1, 0.2),
        names=frozenset("a"),
    )
    stored = decode_record(encode_record(example), Example)
    assert repr(stored) == repr(example)
    assert stored.table.tobytes() == example.table.tobytes()
    assert stored.table.flags.writeable


def test_a_scalar_of_an_array_is_a_number() -> None:
    assert decode_record(encode_record(Step("a", np.float64(0.25))), Step) == Step("a", 0.25)


@pytest.mark.parametrize("value", [object(), np.array(["a"]), np.array([1], dtype=np.int16)])
def test_what_cannot_be_stored_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        encode_record([value])


def test_what_is_cut_short_is_refused() -> None:
    sketch = StreamSketch(exponential=ExponentialHistogram.from_values(np.array([0.1, 1e9])))
    for is_compressed in (False, True):
        blob = encode_record(sketch, is_compressed=is_compressed)
        for length in range(len(blob)):
            with pytest.raises(StoreError, match="a stored StreamSketch is damaged"):
                decode_record(blob[:length], StreamSketch)


@pytest.mark.parametrize(
    "array",
    [
        ("<f8", (2,), b"\0" * 8),
        ("<f8", (1,), b"\0" * 7),
        ("<i8", (1,), b"\0" * 8),
        (">f8", (1,), b"\0" * 8),
        ("O", (1,), b"\0" * 8),
        ("<f8", b"\0" * 8),
        "<f8",
    ],
)
def test_a_damaged_array_is_refused(array: object) -> None:
    with pytest.raises(StoreError, match="a stored OfFloats is damaged"):
        decode_record(encode_record({"array": array}), OfFloats)


@pytest.mark.parametrize("units", [(-1, b"\1"), (4097, b"\1"), (0, 1), ()])
def test_a_damaged_sum_is_refused(units: object) -> None:
    with pytest.raises(StoreError, match="a stored Moments is damaged"):
        decode_record(encode_record({"count": 1, "exact_sum": units}), Moments)


def test_a_value_of_another_type_is_refused() -> None:
    blob = encode_record(OfCounts(array=np.array([1])))
    for kind in (OfFloats, Step):
        with pytest.raises(StoreError, match=f"a stored {kind.__name__} is damaged"):
            decode_record(blob, kind)
