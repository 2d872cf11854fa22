from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import DataError
from otel_mlmon.table import read
from otel_mlmon.table.read import find_line, read_table


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_words_and_missing_cells(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a,b,c\n1,x,True\n,NA,False\n1e3,y z,true\n"))
    assert table.rows == 3
    numbers = table.columns["a"].numbers
    assert numbers is not None
    np.testing.assert_array_equal(numbers, [1.0, np.nan, 1000.0])
    assert table.columns["b"].texts == ("x", None, "y z")
    assert (table.columns["c"].is_boolean, table.columns["b"].is_boolean) == (True, False)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_seen_from_the_first_line(tmp_path: Path, delimiter: str) -> None:
    table = read_table(written(tmp_path, f"a{delimiter}b\n1{delimiter}2\n"))
    assert list(table.columns) == ["a", "b"]


def test_a_byte_order_mark_quotes_and_blank_lines_are_no_data(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, '\ufeff"a","b"\n\n"1,5","two\nlines"\n\n2,x\n'))
    assert table.columns["a"].texts == ("1,5", "2")
    assert table.columns["b"].texts == ("two\nlines", "x")


def test_a_word_after_many_numbers_makes_the_column_one_of_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "ROWS_A_PIECE", 2)
    table = read_table(written(tmp_path, "a\n1.0\n2\n3\nmany\n"))
    assert table.columns["a"].texts == ("1.0", "2", "3", "many")
    assert table.locate(table.columns["a"].first_text_row).endswith("data.csv:5")


def test_python_spellings_of_numbers_are_words(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, "a\n1_0\n2\n")).columns["a"].texts == ("1_0", "2")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ":1: no column names: the file holds no rows"),
        ("\n1,2\n", ":1: no column names: the file holds no rows"),
        ("a,b,a\n", ":1: column 'a' is there twice"),
        ("a,b\n1,2\n\n3\n", ":4: 1 cells, but the first line names 2"),
        ('a,b\n1,2\n"3,4\n', ":3: unexpected end of data"),
        ('a,"b\n', ":1: unexpected end of data"),
        ('"a\nb",c\n1,2,3\n', ":3: 3 cells, but the first line names 2"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value) == f"{path}{fault}"


def test_a_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 10_000 + b"\xff\xfe,2\n")
    with pytest.raises(DataError, match=r"data\.csv:10002: not UTF-8 text$"):
        read_table(path)


def test_a_header_alone_is_no_rows(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a,b\n"))
    assert (table.rows, list(table.columns)) == (0, ["a", "b"])


def test_lines_are_counted_over_quoted_ones(tmp_path: Path) -> None:
    path = written(tmp_path, 'a\n"x\ny"\nz\n')
    assert [find_line(path, row) for row in range(2)] == [3, 4]


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n" + "1\n" * 50_000)
    progress: list[tuple[str, int, int]] = []
    read_table(path, lambda what, done, total: progress.append((what, done, total)))
    assert progress[-1] == ("reading data.csv", path.stat().st_size, path.stat().st_size)
    assert len(progress) == 3


def test_of_a_single_column_a_blank_line_is_a_missing_value(tmp_path: Path) -> None:
    path = written(tmp_path, "label\ncat\n\ndog\n")
    table = read_table(path)
    assert (table.rows, table.columns["label"].texts) == (3, ("cat", None, "dog"))
    assert [find_line(path, row) for row in range(3)] == [2, 3, 4]


def test_text_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "code,ok\n01,true\n1.0, Private\nNA,false\n"), is_text=True)
    assert table.columns["code"].texts == ("01", "1.0", None)
    assert (table.columns["ok"].texts, table.columns["ok"].is_boolean) == (("true", " Private", "false"), False)


CELLS = st.one_of(
    st.sampled_from(["", "NA", " nan ", "1", "1.0", "-2e3", "01", "1_0", "a", " a", "inf", "None"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=4),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(CELLS, min_size=1, max_size=8), piece=st.integers(1, 9))
def test_the_length_of_a_piece_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: list[str], piece: int
) -> None:
    lines = ["a,b", *('"' + cell.replace('"', '""') + '",1' for cell in cells)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    monkeypatch.setattr(read, "ROWS_A_PIECE", 100)
    column = read_table(path).columns["a"]
    monkeypatch.setattr(read, "ROWS_A_PIECE", piece)
    pieces = read_table(path).columns["a"]
    assert (pieces.texts, pieces.first_text_row, pieces.rows) == (column.texts, column.first_text_row, len(cells))
    assert repr(pieces.numbers) == repr(column.numbers)
