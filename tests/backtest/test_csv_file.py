from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from otel_mlmon.backtest import csv_file
from otel_mlmon.backtest.csv_file import line_of, read_csv
from otel_mlmon.backtest.run import no_progress
from otel_mlmon.errors import ConfigurationError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_words_and_missing_cells(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a,b,c\n1,x,True\n,NA,False\n1e3,y z,true\n"), no_progress)
    assert table.rows == 3
    numbers = table.columns["a"].numbers
    assert numbers is not None
    np.testing.assert_array_equal(numbers, [1.0, np.nan, 1000.0])
    assert table.columns["b"].words == ("x", None, "y z")
    assert (table.columns["c"].is_truth, table.columns["b"].is_truth) == (True, False)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_seen_from_the_first_line(tmp_path: Path, delimiter: str) -> None:
    table = read_csv(written(tmp_path, f"a{delimiter}b\n1{delimiter}2\n"), no_progress)
    assert list(table.columns) == ["a", "b"]


def test_a_byte_order_mark_quotes_and_blank_lines_are_no_data(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, '\ufeff"a","b"\n\n"1,5","two\nlines"\n\n2,x\n'), no_progress)
    assert table.columns["a"].words == ("1,5", "2")
    assert table.columns["b"].words == ("two\nlines", "x")


def test_a_word_after_many_numbers_makes_the_column_one_of_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "ROWS_A_PIECE", 2)
    table = read_csv(written(tmp_path, "a\n1.0\n2\n3\nmany\n"), no_progress)
    assert table.columns["a"].words == ("1", "2", "3", "many")
    assert table.place(table.columns["a"].first_word).endswith("data.csv:5")


def test_python_spellings_of_numbers_are_words(tmp_path: Path) -> None:
    assert read_csv(written(tmp_path, "a\n1_0\n2\n"), no_progress).columns["a"].words == ("1_0", "2")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ":1: no column names: the file is empty"),
        ("a,b,a\n", ":1: column 'a' is there twice"),
        ("a,b\n1,2\n\n3\n", ":4: 1 cells, but the first line names 2"),
        ('a,b\n1,2\n"3,4\n', ":3: unexpected end of data"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        read_csv(path, no_progress)
    assert caught.value.faults == (f"{path}{fault}",)


def test_a_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b\n\xff\xfe,2\n")
    with pytest.raises(ConfigurationError, match="not UTF-8 text"):
        read_csv(path, no_progress)


def test_a_header_alone_is_no_rows(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a,b\n"), no_progress)
    assert (table.rows, list(table.columns)) == (0, ["a", "b"])


def test_lines_are_counted_over_quoted_ones(tmp_path: Path) -> None:
    path = written(tmp_path, 'a\n"x\ny"\nz\n')
    assert [line_of(path, row) for row in range(2)] == [3, 4]


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n" + "1\n" * 50_000)
    told: list[tuple[str, int, int]] = []
    read_csv(path, lambda what, done, total: told.append((what, done, total)))
    assert told[-1] == ("reading data.csv", path.stat().st_size, path.stat().st_size)
    assert len(told) == 3
