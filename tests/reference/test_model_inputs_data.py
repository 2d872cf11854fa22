from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from otel_mlmon.errors import DataError
from otel_mlmon.reference.model_inputs import ModelInputData, read_input_data, read_label_column, read_number_column


def written(folder: Path, content: str | bytes, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_table_of_text_is_columns_by_name(tmp_path: Path) -> None:
    data = read_input_data(written(tmp_path, '\ufeffage,city,code\n41,"Aachen, old",01\n\n NaN ,,02\n1e3,Bonn,null\n'))
    assert (data.row_count, data.is_table, list(data.columns)) == (3, True, ["age", "city", "code"])
    assert read_number_column(data, "age").tolist()[::2] == [41.0, 1000.0]
    assert math.isnan(read_number_column(data, "age")[1])
    assert read_label_column(data, "city") == ["Aachen, old", None, "Bonn"]
    assert read_label_column(data, "code") == ["01", "02", None]


def test_a_value_that_is_no_number_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "age,x\n1,a\n\nold,b\n")
    with pytest.raises(DataError) as caught:
        read_number_column(read_input_data(path), "age")
    assert str(caught.value) == f"{path}:4: column age: 'old' is not a number"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no rows"),
        ("a,b\n", "holds no rows"),
        ("a,b\n1,2\n1,2,3\n", ":3: 3 cells, but the first line names 2"),
        (b"a\n\xff\n", ":2: not UTF-8 text; --encoding says what it is, one of utf-8, utf-16, latin-1"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_input_data(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(message)


def test_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), y=np.array([1.0, 2.5, np.nan]), z=np.array(["a", "b", ""]))
    data = read_input_data(tmp_path / "a.npz")
    assert (data.row_count, data.is_table, sorted(data.columns)) == (3, False, ["x", "y", "z"])
    assert read_label_column(data, "y") == ["1", "2.5", None]
    assert read_label_column(data, "z") == ["a", "b", None]
    np.save(tmp_path / "labels.npy", np.arange(3))
    assert read_label_column(read_input_data(tmp_path / "labels.npy"), "labels") == ["0", "1", "2"]


def test_arrays_of_other_lengths_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), y=np.ones(2))
    with pytest.raises(DataError, match="not of one length: x 3, y 2"):
        read_input_data(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"no archive", "a.npz"),
        ("a.npy", b"no array", "a.npy"),
        ("a.npy", b"", "a.npy: No data left in file"),
        (
            "a.xlsx",
            b"",
            "the file name must end with one of .csv .tsv .txt .parquet .pq .jsonl .ndjson .json .npz .npy",
        ),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_input_data(written(tmp_path, content, name))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="allow_pickle"):
        read_input_data(tmp_path / "a.npz")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("none.csv", "none.npz"):
        with pytest.raises(DataError, match="No such file"):
            read_input_data(tmp_path / name)


def test_a_column_that_is_not_there_is_named() -> None:
    data = ModelInputData(name="d.csv", columns={"a": np.ones(1), "b": np.ones(1)}, is_table=True, locate=str)
    assert list(data.select_columns(["b", "a"]).columns) == ["b", "a"]
    assert list(data.drop_column("a").columns) == ["b"]
    with pytest.raises(DataError, match=r"d.csv has no column c; it has a, b"):
        data.select_columns(["c"])


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra [backtest] is not installed")
    from pyarrow import parquet

    columns = {"age": [41, None, 3], "city": ["Aachen", None, "Bonn"], "ok": [True, False, True], "x": [0.5, 1.5, 2.5]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    data = read_input_data(tmp_path / "t.parquet")
    csv = read_input_data(written(tmp_path, "age,city,ok,x\n41,Aachen,True,0.5\n,,False,1.5\n3,Bonn,True,2.5\n"))
    assert list(data.columns) == list(csv.columns)
    for name in ("age", "x"):
        assert np.array_equal(read_number_column(data, name), read_number_column(csv, name), equal_nan=True)
    for name in ("age", "city", "ok"):
        assert read_label_column(data, name) == read_label_column(csv, name)
    with pytest.raises(DataError):
        read_input_data(written(tmp_path, b"PAR1 no table", "bad.parquet"))


def test_truth_and_time_of_parquet_are_what_they_say(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra [backtest] is not installed")
    from pyarrow import parquet

    when = np.array(["2026-01-02T03:04:05", "NaT"], dtype="datetime64[us]")
    parquet.write_table(pyarrow.table({"ok": [True, None], "when": when}), tmp_path / "t.parquet")
    data = read_input_data(tmp_path / "t.parquet")
    assert np.array_equal(read_number_column(data, "ok"), [1.0, np.nan], equal_nan=True)
    assert (read_label_column(data, "ok"), read_label_column(data, "when")) == (
        ["True", None],
        ["2026-01-02 03:04:05", None],
    )
    with pytest.raises(DataError, match=r"t\.parquet: row 0: column when: '2026-01-02 03:04:05' is not a number"):
        read_number_column(data, "when")
