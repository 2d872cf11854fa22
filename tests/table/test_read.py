"""Tables as people have them: each is read for what it is, or refused with its place and what to do."""

from __future__ import annotations

import codecs
import gzip
import json
import sys
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from otel_mlmon.backtest.column_streams import build_column_streams
from otel_mlmon.backtest.columns import build_table_profile, choose_column_kinds
from otel_mlmon.backtest.replay_table import build_count_plan, count_table
from otel_mlmon.backtest.request import BacktestRequest
from otel_mlmon.errors import DependencyMissingError, MlmonError
from otel_mlmon.table.read import open_duckdb, read_table
from otel_mlmon.table.table import ignore_progress

ROWS = 1_200
AMOUNTS = np.round(np.random.default_rng(1).normal(5, 1, ROWS), 3).tolist()
REGIONS = np.random.default_rng(2).choice(list("abc"), ROWS).tolist()
PAIRS = list(zip(AMOUNTS, REGIONS, strict=True))
HEAD = "amount,region\n"
BODY = "".join(f"{amount},{region}\n" for amount, region in PAIRS)
TEXT = HEAD + BODY
COMMAS = "amount;region\n" + "".join(f"{amount};{region}\n".replace(".", ",") for amount, region in PAIRS)
LINES = "".join(json.dumps({"amount": amount, "region": region}) + "\n" for amount, region in PAIRS)
LINE = ROWS + 2
"""The line after the last of `TEXT`."""
ENDINGS = ".csv .tsv .txt .parquet .pq .jsonl .ndjson .json"
ENCODING = "; --encoding says what it is, one of utf-8, utf-16, latin-1"
NUMERIC = "and its reference is numeric"


def arrow(**columns: object) -> bytes:
    """A Parquet file of these columns."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"amount": AMOUNTS, "region": REGIONS, **columns}), sink)
    return bytes(sink.getvalue())


def zstd(text: str) -> bytes:
    """Text packed by Zstandard."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text.encode())
    return bytes(sink.getvalue())


def cut(content: bytes, end: int) -> bytes:
    """The beginning of a file, with noise inside."""
    return content[:60] + b"\xff" * 300 + content[360:end]


GOOD: list[tuple[str, str, str | bytes]] = [
    ("commas", "a.csv", TEXT),
    ("semicolons", "a.csv", TEXT.replace(",", ";")),
    ("semicolons and decimal commas", "a.csv", COMMAS),
    ("bars", "a.csv", TEXT.replace(",", "|")),
    ("tabs", "a.TSV", TEXT.replace(",", "\t")),
    ("a file of text", "a.txt", TEXT),
    ("lines of Windows", "a.csv", TEXT.replace("\n", "\r\n")),
    ("lines of an old Macintosh", "a.csv", TEXT.replace("\n", "\r")),
    ("sep= of Excel", "a.csv", "sep=;\n" + TEXT.replace(",", ";")),
    ("a byte order mark", "a.csv", codecs.BOM_UTF8 + TEXT.encode()),
    ("UTF-16", "a.csv", TEXT.encode("utf-16")),
    ("gzip", "a.csv.gz", gzip.compress(TEXT.encode())),
    ("Zstandard", "a.csv.zst", zstd(TEXT)),
    ("quotes", "a.csv", HEAD + "".join(f'"{amount}","{region}"\n' for amount, region in PAIRS)),
    ("single quotes", "a.csv", "'amount','region'\n" + "".join(f"'{a}','{b}'\n" for a, b in PAIRS)),
    ("a delimiter at the end of all lines", "a.csv", TEXT.replace("\n", ",\n")),
    ("a delimiter at the end of rows", "a.csv", HEAD + BODY.replace("\n", ",\n")),
    ("blank lines", "a.csv", HEAD + "\n" + BODY.replace("\n", "\n\n")),
    ("no end of the last line", "a.csv", TEXT[:-1]),
    ("columns in another order", "a.csv", "region,amount\n" + "".join(f"{b},{a}\n" for a, b in PAIRS)),
    ("a quote inside a text", "a.csv", TEXT + '3,a"b\n'),
    ("missing in every way", "a.csv", TEXT + ",\nNA,null\n NaN ,#N/A\ninf,<NA>\n"),
    ("Parquet", "a.parquet", arrow()),
    ("Parquet by another ending", "a.PQ", arrow()),
    ("float32", "a.parquet", arrow(amount=pa.array(AMOUNTS, pa.float32()))),
    ("decimals", "a.parquet", arrow(amount=[Decimal(str(amount)) for amount in AMOUNTS])),
    ("numbers as text", "a.parquet", arrow(amount=list(map(str, AMOUNTS)))),
    ("dictionaries", "a.parquet", arrow(region=pa.array(REGIONS).dictionary_encode())),
    ("names that differ in case", "a.parquet", arrow(Amount=AMOUNTS)),
    ("nested beside", "a.parquet", arrow(more=[[1]] * ROWS)),
    ("JSON lines", "a.jsonl", LINES),
    ("packed JSON lines", "a.ndjson.gz", gzip.compress(LINES.encode())),
    ("an array of JSON", "a.json", "[" + LINES.replace("\n", ",")[:-1] + "]"),
    ("keys that are missing", "a.jsonl", LINES + '{"amount": 4.5}\n{"region": "a"}\n'),
]

BAD: list[tuple[str, str, str | bytes, str]] = [
    ("nothing", "a.csv", "", ":1: no column names: the file holds no rows"),
    ("blank lines only", "a.csv", "\n\n", ":1: no column names: the file holds no rows"),
    ("a number as a name", "a.csv", BODY, f":1: no column names: '{AMOUNTS[0]}' is a number"),
    ("a name twice", "a.csv", "a,b,a\n", ":1: column 'a' is there twice"),
    ("a short row", "a.csv", HEAD + "1,a\n\n3\n", ":4: 1 cells, but the first line names 2"),
    ("a long row", "a.csv", HEAD + "1,a\n3,b,c\n", ":3: 3 cells, but the first line names 2"),
    ("a long row late", "a.csv", HEAD + BODY * 40 + "1,2,3\n", f":{40 * ROWS + 2}: 3 cells, but the first line names 2"),
    ("names over two lines", "a.csv", '"a\nb",c\n1,2,3\n', ":3: 3 cells, but the first line names 2"),
    ("a quote that is not closed", "a.csv", TEXT + '"3,a\n', f":{LINE}: unexpected end of data"),
    ("a name that is not closed", "a.csv", 'a,"b\n', ":1: unexpected end of data"),
    ("text after a quote", "a.csv", TEXT + '3,"a"b\n', f":{LINE}: ',' expected after '\"'"),
    ("a word among numbers", "a.csv", TEXT + "many,a\n", f":{LINE}: column 'amount': 'many' is not a number, {NUMERIC}"),
    ("a word after lines in quotes", "a.csv", TEXT + '3,"a\nb"\nmany,a\n',
     f":{LINE + 2}: column 'amount': 'many' is not a number, {NUMERIC}"),
    ("a decimal comma among points", "a.csv", TEXT + '"1,5",a\n',
     f":{LINE}: column 'amount': '1,5' is not a number, {NUMERIC}; --decimal says whether a comma separates the "
     "fraction"),
    ("a point among decimal commas", "a.csv", COMMAS + "2.5;a\n",
     f":{LINE}: column 'amount': '2.5' is not a number, {NUMERIC}; others have a decimal comma"),
    ("thousands and decimals", "a.csv", COMMAS + "1.234,5;a\n",
     f":{LINE}: column 'amount': '1.234,5' is not a number, {NUMERIC}; --decimal says whether a comma separates the "
     "fraction"),
    ("thousands or decimals", "a.csv", "amount;region\n" + "1,234;a\n" * 9,
     ": column 'amount': numbers have a comma; --decimal says whether it separates the fraction"),
    ("digits in groups", "a.csv", TEXT + "1_000,a\n", f":{LINE}: column 'amount': '1_000' is not a number, {NUMERIC}"),
    ("hexadecimals", "a.csv", TEXT + "0x10,a\n", f":{LINE}: column 'amount': '0x10' is not a number, {NUMERIC}"),
    ("percents", "a.csv", TEXT + "12%,a\n", f":{LINE}: column 'amount': '12%' is not a number, {NUMERIC}"),
    ("a currency", "a.csv", TEXT + "5 €,a\n", f":{LINE}: column 'amount': '5 €' is not a number, {NUMERIC}"),
    ("Latin letters", "a.csv", (TEXT + "1,é\n").encode("latin-1"), f":{LINE}: not UTF-8 text{ENCODING}"),
    ("Latin letters late", "a.csv", (HEAD + BODY * 200 + "1,é\n").encode("latin-1"),
     f":{200 * ROWS + 2}: not UTF-8 text{ENCODING}"),
    ("big-endian UTF-16", "a.csv", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
     ": big-endian UTF-16 cannot be read: save it as UTF-8"),
    ("zero bytes", "a.csv", b"amount,region\n1,a\0\n", ":2: holds zero bytes: no text"),
    ("no text", "a.csv", bytes(range(256)), f":2: not UTF-8 text{ENCODING}"),
    ("a workbook called CSV", "a.csv", b"PK\x03\x04" + bytes(range(128, 256)), f":1: not UTF-8 text{ENCODING}"),
    ("lines that end in two ways", "a.csv", HEAD.replace("\n", "\r\n") + BODY,
     ": its lines end in different ways, some with a carriage return: save it anew"),
    ("a very long line", "a.csv", TEXT + "1," + "x" * 3_000_000 + "\n", f":{LINE}: field larger than field limit (2097152)"),
    ("a file that is not packed", "a.csv.gz", TEXT,
     ": damaged, or not packed as its name says: zlib inflate failed: incorrect header check"),
    ("half a packed file", "a.csv.gz", gzip.compress(TEXT.encode())[:-900],
     ": damaged, or not packed as its name says: Truncated compressed stream"),
    ("an archive", "a.csv.zip", b"PK", ": packed: unpack it, or pack it as .gz or .zst"),
    ("a workbook", "a.xlsx", b"PK", ": a spreadsheet: save it as CSV"),
    ("a pickle", "a.pkl", b"", ": save it as Parquet"),
    ("no ending", "table", b"x", f": the file name must end with one of {ENDINGS}, or of these and .gz .zst"),
    ("text called Parquet", "a.parquet", TEXT, ": not a Parquet file: Parquet magic bytes not found in footer. Either "
     "the file is corrupted or this is not a parquet file."),
    ("half a Parquet file", "a.parquet", arrow()[:900], ": not a Parquet file: Parquet magic bytes not found in footer. "
     "Either the file is corrupted or this is not a parquet file."),
    ("numbers that are lists", "a.parquet", arrow(amount=[[1.0]] * ROWS),
     ": column 'amount' is list<element: double>, and its reference is numeric"),
    ("classes that are objects", "a.parquet", arrow(region=[{"a": 1}] * ROWS),
     ": column 'region' is struct<a: int64>, and its reference is of categories"),
    ("classes that are bytes", "a.parquet", arrow(region=[b"a"] * ROWS),
     ": column 'region' is binary, and its reference is of categories"),
    ("times where numbers were", "a.parquet", arrow(amount=pa.array(range(ROWS), pa.timestamp("us", "Europe/Berlin"))),
     ": column 'amount' is timestamp[us, tz=Europe/Berlin], and its reference is numeric"),
    ("durations where numbers were", "a.parquet", arrow(amount=pa.array(range(ROWS), pa.duration("s"))),
     ": column 'amount' is duration[s], and its reference is numeric"),
    ("broken JSON", "a.jsonl", LINES + '{"amount":\n', f":{ROWS + 1}: not JSON: Expecting value: line 2 column 1 (char 11)"),
    ("a word among numbers of JSON", "a.jsonl", LINES + '{"amount": "many"}\n',
     f":{ROWS + 1}: column 'amount': 'many' is not a number, {NUMERIC}"),
    ("nested JSON", "a.jsonl", '{"amount": {"v": 1}, "region": "a"}\n' * 3,
     ": column 'amount' is nested, and its reference is numeric"),
    ("numbers alone as JSON", "a.jsonl", "1\n2\n", ": the lines are no objects: no column names"),
]  # fmt: skip
# ruff: noqa: E501 - a table is easier to read in lines


def write(path: Path, content: str | bytes) -> str:
    """Writes a file as it is, and returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sequence[int]]:
    """Counts the rows of a table over the bins of `TEXT`."""
    reference = read_table(write(tmp_path_factory.mktemp("reference") / "ref.csv", TEXT))
    choices = choose_column_kinds(reference, {}, timestamp=None)
    profile = build_table_profile(reference, choices)

    def count_rows(location: str) -> Sequence[int]:
        table = read_table(location)
        request = BacktestRequest(reference="ref.csv", data=location)
        plan = build_count_plan(request, table, build_column_streams(table, choices, profile))
        counts = count_table(plan, table, ignore_progress)
        total: list[int] = np.sum([window.counts for window in counts.windows.values()], axis=0).tolist()
        return total

    return count_rows


@pytest.mark.parametrize(("name", "content"), [entry[1:] for entry in GOOD], ids=[entry[0] for entry in GOOD])
def test_a_table_is_read_for_what_it_is(
    tmp_path: Path, count: Callable[[str], Sequence[int]], name: str, content: str | bytes
) -> None:
    expected = np.array(count(write(tmp_path / "same.csv", TEXT)))
    counts = np.array(count(write(tmp_path / name, content)))
    assert 0 <= int(np.abs(counts - expected).sum()) <= 8, counts.tolist()
    assert int(expected.sum()) == 2 * ROWS


@pytest.mark.parametrize(("name", "content", "fault"), [entry[1:] for entry in BAD], ids=[entry[0] for entry in BAD])
def test_what_cannot_be_read_is_said_with_its_place(
    tmp_path: Path, count: Callable[[str], Sequence[int]], name: str, content: str | bytes, fault: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(MlmonError) as caught:
        count(path)
    assert str(caught.value) == f"{path}{fault}"


def test_a_damaged_page_of_parquet_is_said(tmp_path: Path, count: Callable[[str], Sequence[int]]) -> None:
    path = write(tmp_path / "a.parquet", cut(arrow(), len(arrow())))
    with pytest.raises(MlmonError, match=r"a\.parquet: damaged: "):
        count(path)


def test_types_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "whole": pa.array([1, None, 3]),
        "truth": pa.array([True, None, False]),
        "day": pa.array([date(2026, 1, 1), None, date(9999, 12, 31)]),
        "none": pa.nulls(3),
        "list": pa.array([[1], [2], [3]]),
    }
    parquet.write_table(pa.table(columns), path)
    table = read_table(str(path))
    assert {name: column.kind for name, column in table.columns.items()} == {
        "whole": "number", "truth": "boolean", "day": "time", "none": "number", "list": "unreadable",
    }  # fmt: skip
    assert (table.rows, table.locate(1)) == (3, f"{path}: row 1")


def test_columns_that_are_numbers_or_text_are_known_from_all_rows(tmp_path: Path) -> None:
    text = "code,late,x\n" + "01,1,1.5\n" * 3_000 + "02,many,2.5\n"
    table = read_table(write(tmp_path / "a.csv", text))
    choices = choose_column_kinds(table, {}, timestamp=None)
    assert {name: choice.kind for name, choice in choices.items()} == {
        "code": "category", "late": "category", "x": "numeric",
    }  # fmt: skip
    categories = build_table_profile(table, choices).streams["input.code"].categories.counts
    assert dict(categories) == {"01": 3_000, "02": 1}


def test_said_encodings_and_decimals_are_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ort;x\nKöln;1,234\n".encode("latin-1"))
    table = read_table(path, encoding="latin-1", decimal=",")
    (batch,) = table.scan(["ort"])
    assert batch.column(0).to_pylist() == ["Köln"]
    assert (table.columns["x"].decimal, table.columns["x"].has_ambiguous_commas) == (",", False)


def test_duckdb_installs_and_loads_nothing() -> None:
    connection = open_duckdb()
    settings = dict(
        connection.execute(
            "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%known_extensions'"
        ).fetchall()
    )
    assert settings == {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}


def test_without_duckdb_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(DependencyMissingError, match=r'pip install "otel-mlmon\[backtest\]"'):
        read_table(write(tmp_path / "a.csv", TEXT))


def test_progress_and_lines_of_quoted_cells(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", 'a\n"x\ny"\nz\n\n'))
    assert sum(len(batch) for batch in table.scan(["a"])) == 3  # of a single column a blank line is a missing value
    assert [table.locate(row).rpartition(":")[2] for row in range(3)] == ["3", "4", "5"]
