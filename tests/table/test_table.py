from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from otel_mlmon.errors import DataError
from otel_mlmon.table.table import ROWS_A_BATCH, open_memory_table

COLUMNS: dict[str, list[Any]] = {"n": [1, 2, None], "t": ["a", None, "b"], "x": [0.5, 1.5, 2.5]}


@pytest.mark.parametrize(
    "build",
    [pa.table, lambda columns: pa.RecordBatch.from_pydict(columns), pd.DataFrame, pl.DataFrame, dict,
     lambda columns: pa.table(columns).to_reader()],
)  # fmt: skip
def test_tables_in_memory_are_the_same_whoever_holds_them(build: Callable[[Any], object]) -> None:
    table = open_memory_table(build(COLUMNS), "data")
    assert {name: column.kind for name, column in table.columns.items()} == {"n": "number", "t": "text", "x": "number"}
    for _ in range(2):  # it can be read again
        (batch,) = table.scan(["x", "t"])
        assert batch.to_pydict() == {"x": [0.5, 1.5, 2.5], "t": ["a", None, "b"]}
    assert table.rows == 3


def test_batches_are_bounded() -> None:
    table = open_memory_table({"x": np.arange(ROWS_A_BATCH + 1)}, "data")
    assert [len(batch) for batch in table.scan(["x"])] == [ROWS_A_BATCH, 1]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (5, "data: a int is no table: a path, Arrow, pandas or polars is"),
        ({"a": 1}, "data: a column is no list of values: 'int' object is not iterable"),
        ({"a": [1], "b": [1, 2]}, "data: the columns are not of one length: {'a': 1, 'b': 2}"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "data: column 'a' is there twice"),
    ],
)
def test_what_is_no_table_is_said(data: object, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        open_memory_table(data, "data")
    assert str(caught.value) == fault


def test_cells_of_several_types_are_texts_and_nested_ones_are_unreadable() -> None:
    table = open_memory_table(pd.DataFrame({"mixed": [1, "x", None], "list": [[1], {"a": 1}, None]}), "data")
    assert {name: column.kind for name, column in table.columns.items()} == {"mixed": "text", "list": "unreadable"}
    (batch,) = table.scan(["mixed"])
    assert batch.column(0).to_pylist() == ["1", "x", None]
