from __future__ import annotations

from pathlib import Path

import pytest

from otel_mlmon.errors import DataError, DependencyMissingError
from otel_mlmon.table.files import find_format_suffix, find_table_files
from otel_mlmon.table.read import read_table

ENDINGS = ".csv .tsv .txt .parquet .pq .jsonl .ndjson .json"


def tree(folder: Path, *names: str) -> Path:
    """A folder of small tables."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n1\n")
    return folder


def names_of(location: Path | str, root: Path) -> list[str]:
    return [str(Path(file.path).relative_to(root)) for file in find_table_files(str(location)).files]


def test_a_folder_is_its_tables_in_the_order_of_their_names(tmp_path: Path) -> None:
    tree(tmp_path, "b.csv", "a/2.csv", "a/1.csv.gz", "_SUCCESS", ".a.csv.crc", "_temporary/0.csv", "read.me")
    assert names_of(tmp_path, tmp_path) == ["a/1.csv.gz", "a/2.csv", "b.csv"]
    assert names_of(f"{tmp_path}/*.csv", tmp_path) == ["b.csv"]
    assert names_of(f"{tmp_path}/**/*.csv", tmp_path) == ["a/2.csv", "b.csv"]


def test_folders_may_be_columns(tmp_path: Path) -> None:
    tree(tmp_path, "day=2026-01-01/a.csv", "day=2026-01-02/a.csv")
    table = read_table(str(tmp_path))
    rows = [row for batch in table.scan(["day", "x"]) for row in batch.to_pylist()]
    assert rows == [{"day": "2026-01-01", "x": "1"}, {"day": "2026-01-02", "x": "1"}]


def test_a_name_that_is_a_pattern_is_first_of_all_a_name(tmp_path: Path) -> None:
    tree(tmp_path, "a[1].csv", "a1.csv")
    assert names_of(tmp_path / "a[1].csv", tmp_path) == ["a[1].csv"]
    table = read_table(str(tmp_path / "a[1].csv"))
    assert [len(batch) for batch in table.scan(["x"])] == [1]


@pytest.mark.parametrize(
    ("names", "location", "fault"),
    [
        ((), "none.csv", "none.csv: No such file or directory"),
        ((), "none*.csv", "none*.csv: no file matches"),
        (("empty/read.me",), "empty", f"empty: the folder holds no file that ends with one of {ENDINGS}"),
        (("a/1.csv", "a/2.jsonl"), "a", "a: holds files of several formats, csv and json: name those of one"),
        (("a/_delta_log/0.json", "a/1.parquet"), "a", "a: a table of Delta, of which some files are outdated"),
        (("a/metadata/version-hint.text", "a/1.parquet"), "a", "a: a table of Iceberg, of which some files are"),
        (("a.csv/",), "a.csv", "a.csv: the folder holds no file"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, names: tuple[str, ...], location: str, fault: str) -> None:
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else tree(tmp_path, name)
    with pytest.raises(DataError) as caught:
        find_table_files(f"{tmp_path}/{location}")
    assert str(caught.value).startswith(f"{tmp_path}/{fault}")


def test_links_that_go_round_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "a.csv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "again").symlink_to(tmp_path / "folder")
    tree(tmp_path, "folder/b.csv")
    assert names_of(tmp_path / "folder", tmp_path) == ["folder/b.csv"]
    with pytest.raises(DataError, match=r"a\.csv: Too many levels of symbolic links"):
        find_table_files(str(tmp_path / "a.csv"))


def test_files_of_one_table_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("x,y\n1,2\n")
    (tmp_path / "2.csv").write_text("y,x\n2,1\n")
    table = read_table(str(tmp_path))
    assert [row for batch in table.scan(["x"]) for row in batch.to_pylist()] == [{"x": "1"}, {"x": "1"}]
    (tmp_path / "3.csv").write_text("x\n1\n")
    with pytest.raises(DataError) as caught:
        read_table(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}/3.csv: has no column 'y', which {tmp_path}/1.csv has"


def test_an_empty_part_is_said_and_no_fault(tmp_path: Path) -> None:
    tree(tmp_path, "1.csv")
    (tmp_path / "2.csv").touch()
    table = read_table(str(tmp_path))
    assert table.notes == (f"{tmp_path}/2.csv is empty.",)


def test_the_place_of_a_row_is_in_its_file(tmp_path: Path) -> None:
    tree(tmp_path, "1.csv", "2.csv")
    table = read_table(str(tmp_path))
    assert sum(len(batch) for batch in table.scan(["x"])) == 2
    assert [table.locate(row) for row in range(2)] == [f"{tmp_path}/1.csv:2", f"{tmp_path}/2.csv:2"]


def test_a_store_needs_its_driver() -> None:
    with pytest.raises(DependencyMissingError, match=r"nowhere://a\.csv: needs fsspec and its driver"):
        find_table_files("nowhere://a.csv")


@pytest.mark.parametrize(("path", "suffix"), [("a.CSV", ".csv"), ("a.csv.gz", ".csv"), ("a.gz", ""), ("b/a", "")])
def test_the_ending_of_a_path(path: str, suffix: str) -> None:
    assert find_format_suffix(path) == suffix
