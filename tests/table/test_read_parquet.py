from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from otel_mlmon.errors import DataError, DependencyMissingError
from otel_mlmon.table.read import read_table


def test_every_kind_of_column_is_numbers_words_or_times(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pip install "otel-mlmon[parquet]"')
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data.parquet"
    columns = {
        "whole": pa.array([1, None, 3]),
        "real": pa.array([0.5, 1.5, None], type=pa.float32()),
        "money": pa.array([Decimal("1.25"), None, Decimal("3.00")]),
        "truth": pa.array([True, None, False]),
        "word": pa.array(["x", "y", None]).dictionary_encode(),
        "when": pa.array(np.array(["2026-01-01", "2026-01-02", "2026-01-03"], dtype="datetime64[us]")),
        "text": pa.array(["NA", " b", None]),
        "list": pa.array([[1], [2], [3]]),
    }
    parquet.write_table(pa.table(columns), path)
    table = read_table(path)
    assert (table.rows, list(table.columns)) == (3, ["whole", "real", "money", "truth", "word", "when", "text"])
    for name, expected in (("whole", [1, np.nan, 3]), ("real", [0.5, 1.5, np.nan]), ("money", [1.25, np.nan, 3])):
        numbers = table.columns[name].numbers
        assert numbers is not None
        np.testing.assert_array_equal(numbers, expected)
    assert table.columns["truth"].texts == ("True", None, "False")
    assert table.columns["truth"].is_boolean
    assert table.columns["word"].texts == ("x", "y", None)
    assert (table.columns["text"].texts, table.columns["text"].first_text_row) == ((None, " b", None), 1)
    times = table.columns["when"].times_ns
    assert times is not None
    assert np.diff(times).tolist() == [86_400 * 10**9] * 2


def test_a_date_that_no_nanosecond_reaches_is_the_word_that_csv_has(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pip install "otel-mlmon[parquet]"')
    path = tmp_path / "data.parquet"
    until = pa.array([date(9999, 12, 31), None, date(2026, 1, 1)])
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"until": until}), path)
    column = read_table(path).columns["until"]
    assert (column.texts, column.times_ns) == (("9999-12-31", None, "2026-01-01"), None)


def test_another_file_is_a_fault(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason='pip install "otel-mlmon[parquet]"')
    path = tmp_path / "data.parquet"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"data\.parquet: not a Parquet file"):
        read_table(path)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyMissingError, match=r'pip install "otel-mlmon\[parquet\]"'):
        read_table(tmp_path / "data.parquet")


def test_two_columns_of_one_name_are_a_fault(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pip install "otel-mlmon[parquet]"')
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(DataError, match=r"data\.parquet: column 'a' is there twice"):
        read_table(path)
