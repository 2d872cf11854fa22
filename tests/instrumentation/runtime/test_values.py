"""Values of the host's are copied, within bounds; what is no value is refused."""

from __future__ import annotations

import datetime as dt
import enum
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.runtime.call import RECORD_BYTES, ObservedValues
from otel_mlmon.instrumentation.runtime.values import (
    MAX_CHARACTERS,
    MAX_FEATURES,
    MAX_ROWS,
    MAX_SCORE_BYTES,
    SMALL_BYTES,
    SMALL_FEATURES,
    VALUE_BYTES,
    copy_observed_features,
    copy_observed_outcome,
    estimate_observed_bytes,
    is_small_outcome,
)

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=300))


class Answer(str, enum.Enum):
    STAY = "stay"


class Level(enum.IntEnum):
    HIGH = 3


def test_the_bounds_are_those_of_the_documentation() -> None:
    bounds = (MAX_ROWS, MAX_SCORE_BYTES, MAX_CHARACTERS, MAX_FEATURES, SMALL_FEATURES, VALUE_BYTES)
    assert bounds == (4096, 65_536, 256, 1024, 32, 100)


def copied(value: Any) -> Any:
    """A label, copied."""
    return copy_observed_outcome((value, None, None, None))[0]


@pytest.mark.parametrize(
    ("value", "copy"),
    [
        ("stay", "stay"),
        (Answer.STAY, "stay"),
        (np.str_("stay"), "stay"),
        (Level.HIGH, 3),
        (True, True),
        (np.bool_(True), True),
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.array(2), 2),
        (["a", "b"], ObservedValues(2, ("a", "b"))),
        (("a", None), ObservedValues(2, ("a", None))),
        ([], ObservedValues(0, ())),
        (np.array(["a", "b"]), ObservedValues(2, ("a", "b"))),
        (np.array(["a", None], dtype=object), ObservedValues(2, ("a", None))),
        (np.array([[1], [2]]), ObservedValues(2, (1, 2))),
        ([np.int64(1), np.int64(2)], ObservedValues(2, (1, 2))),
        ([[1], [2]], ObservedValues(2, (1, 2))),
        (range(3), ObservedValues(3, (0, 1, 2))),
    ],
)
def test_what_is_copied_is_of_pythons_own_types(value: object, copy: object) -> None:
    found = copied(value)
    values = found.values if isinstance(found, ObservedValues) else (found,)
    assert found == copy
    assert {type(value) for value in values} <= {str, int, float, bool, type(None)}


@pytest.mark.parametrize(
    "value",
    [object(), dt.date(2026, 1, 1), b"bytes", {"a": 1}, [object()], np.zeros((2, 2)), 1j, [[1, 2], [3, 4]]],
)
def test_what_is_no_value_is_refused_as_an_outcome_and_missing_as_a_feature(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        copied(value)
    assert copy_observed_features({"x": value, "y": 1}) == ({"x": None, "y": 1}, False)


@settings(deadline=None)
@given(rows=st.lists(SCALARS, max_size=50))
def test_a_sequence_is_copied_row_by_row(rows: list[Any]) -> None:
    found = copied(rows)
    assert found == ObservedValues(
        len(rows), tuple(row[:MAX_CHARACTERS] if isinstance(row, str) else row for row in rows)
    )


@pytest.mark.parametrize(("rows", "step"), [(MAX_ROWS, 1), (MAX_ROWS + 1, 2), (2 * MAX_ROWS + 1, 3)])
def test_a_long_sequence_is_thinned_at_a_constant_step(rows: int, step: int) -> None:
    for values in (list(range(rows)), np.arange(rows)):
        assert copied(values) == ObservedValues(rows, tuple(range(0, rows, step)))


@pytest.mark.parametrize("characters", [MAX_CHARACTERS, MAX_CHARACTERS + 1])
def test_a_long_text_is_cut(characters: int) -> None:
    text = "x" * characters
    assert copied(text) == copied([text]).values[0] == text[:MAX_CHARACTERS]
    assert is_small_outcome((text, 0.5, None, None)) is (characters <= MAX_CHARACTERS)
    copies, is_small = copy_observed_features({"text": text})
    assert (copies, is_small) == ({"text": text[:MAX_CHARACTERS]}, characters <= MAX_CHARACTERS)


@pytest.mark.parametrize(
    ("outcome", "is_small"),
    [
        (("a", 0.5, None, None), True),
        ((1, 0.5, 2, None), True),
        ((None, None, None, None), True),
        ((["a"], 0.5, None, None), False),
        (("a", [0.5], None, None), False),
        (("a", 0.5, "b", None), False),
        ((None, None, None, [0.5, 0.5]), False),
    ],
)
def test_an_outcome_of_one_row_is_small(outcome: tuple[Any, Any, Any, Any], is_small: bool) -> None:
    assert is_small_outcome(outcome) is is_small


@pytest.mark.parametrize(
    ("scores", "shape"),
    [
        (0.7, (1, 1)),
        ([0.1, 0.9], (1, 2)),
        ([[0.1, 0.9], [0.5, 0.5]], (2, 2)),
        (np.zeros((3, 0)), (3, 0)),
        (np.ones((2, 2), np.float32), (2, 2)),
    ],
)
def test_scores_are_a_table(scores: Any, shape: tuple[int, int]) -> None:
    expected = (shape, np.asarray(scores, dtype=np.float64).tobytes())
    assert copy_observed_outcome((None, None, None, scores))[3] == expected


@pytest.mark.parametrize("rows", [MAX_SCORE_BYTES // 16, MAX_SCORE_BYTES // 16 + 1])
def test_many_rows_of_scores_are_thinned(rows: int) -> None:
    table = np.arange(rows * 2, dtype=np.float64).reshape(rows, 2)
    shape, data = copy_observed_outcome((None, None, None, table))[3]
    assert (shape, data) == ((rows, 2), table[:: 1 if rows * 16 <= MAX_SCORE_BYTES else 2].tobytes())
    assert len(data) <= MAX_SCORE_BYTES


@pytest.mark.parametrize("classes", [MAX_SCORE_BYTES * 2, MAX_SCORE_BYTES * 2 + 1])
def test_of_rows_too_wide_to_copy_only_the_shape_is_kept(classes: int) -> None:
    shape, data = copy_observed_outcome((None, None, None, np.zeros((1, classes))))[3]
    assert (shape, len(data)) == ((1, classes), 8 * classes if classes <= MAX_SCORE_BYTES * 2 else 0)


@pytest.mark.parametrize("scores", [np.zeros((1, 2, 2)), ["a", "b"], "text"])
def test_scores_that_are_no_table_of_numbers_are_refused(scores: object) -> None:
    with pytest.raises(ValueError, match=r"scores of shape|could not convert"):
        copy_observed_outcome((None, None, None, scores))


@pytest.mark.parametrize("count", [SMALL_FEATURES, SMALL_FEATURES + 1, MAX_FEATURES, MAX_FEATURES + 1])
def test_few_features_are_small_and_too_many_are_left(count: int) -> None:
    features = {f"f{index}": index for index in range(count)}
    copies, is_small = copy_observed_features(features)
    assert copies == dict(list(features.items())[:MAX_FEATURES])
    assert copies is not features
    assert is_small is (count <= SMALL_FEATURES)


def test_features_are_copied_from_any_mapping_by_text() -> None:
    class Table:
        """As a data frame: a mapping of columns that is neither a mapping nor true or false."""

        def keys(self) -> list[Any]:
            return ["a", 1]

        def __getitem__(self, name: Any) -> Any:
            return np.array([1.5, math.inf]) if name == "a" else np.array(["x", "y"])

        def __bool__(self) -> bool:
            raise ValueError("ambiguous")

    table: Any = Table()
    expected = {"a": ObservedValues(2, (1.5, math.inf)), "1": ObservedValues(2, ("x", "y"))}
    assert copy_observed_features(table) == (expected, False)
    assert copy_observed_features(None) == (None, True)
    with pytest.raises(TypeError):
        copy_observed_features([1, 2])  # type: ignore[arg-type]


def test_a_call_weighs_what_it_holds_and_a_small_one_less_than_is_reckoned() -> None:
    assert estimate_observed_bytes(None, ("abc", 0.5, None, None)) == RECORD_BYTES + 4 * VALUE_BYTES + 3
    rows = ObservedValues(9, ("a", "bc"))
    assert estimate_observed_bytes({"x": rows, "y": 1}, (rows, None, None, ((1, 2), b"12345678"))) == (
        RECORD_BYTES + (2 + 1 + 2 + 1 + 1 + 1) * VALUE_BYTES + 3 + 3 + 8
    )
    features = {f"f{index}": 1.0 for index in range(SMALL_FEATURES - 1)}
    copies, is_small = copy_observed_features({**features, "text": "x" * MAX_CHARACTERS})
    assert is_small
    assert estimate_observed_bytes(copies, ("x" * MAX_CHARACTERS, 1.0, 1.0, None)) <= SMALL_BYTES
