from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from otel_mlmon import cli
from tests.support.tables import normal


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arguments for a reference and for data that drifts from window 3 of 6 on."""
    for name, rows in (
        ("ref", normal(5_000, seed=1).tolist()),
        ("data", [*normal(3_000, seed=2).tolist(), *normal(3_000, seed=3, mean=1.0).tolist()]),
    ):
        (tmp_path / f"{name}.csv").write_text("id,x\n" + "".join(f"{row},{x}\n" for row, x in enumerate(rows)))
    return ["backtest", "--reference", str(tmp_path / "ref.csv"), "--data", str(tmp_path / "data.csv")]


def test_json_has_a_row_a_column(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*files, "--window", "1000", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == ""
    assert [
        (row["stream"], row["first_alarm_window"], row["onset_window"], row["state"]) for row in document["streams"]
    ] == [
        ("x", 3, 3, "alarm"),
        ("id", None, None, "left_out"),
    ]
    assert (document["windows"], document["rows"], document["false_alarms"]) == (6, 6000, "1 per 10000 windows")


def test_an_alarm_fails_where_it_is_asked_to(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*files, "--fail-on-alarm"]) == 1
    assert capsys.readouterr().out.startswith("It would have alerted, first in window 3: x.")
    same = [*files[:4], files[2]]
    assert cli.main([*same, "--fail-on-alarm"]) == 0


def test_arguments_reach_the_judge(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--window",
        "500",
        "--tolerance",
        "60%",
        "--false-alarms",
        "100",
        "--columns",
        "id:ignore,x:value",
        "--json",
    ]
    assert cli.main([*files, *options]) == 0
    document = json.loads(capsys.readouterr().out)
    row = document["streams"][0]
    assert (document["window"], document["false_alarms"]) == ("500 rows", "1 per 100 windows")
    assert (row["kind"], row["tolerance"], row["first_alarm_window"]) == ("value", 0.6, None)


def test_the_page_is_written(files: list[str], tmp_path: Path) -> None:
    assert cli.main([*files, "--html", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--window", "soon"], "--window: 'soon' is neither rows, such as 1000, nor a time, such as 1h"),
        (["--window", "1h"], "--window: a time needs --timestamp, the column with the time of each row"),
        (["--tolerance", "2"], "--tolerance: '2' must be a ratio within 0% and 100%"),
        (["--tolerance", "100%"], "--tolerance: must be below 100%; with 100% no drift could ever be detected"),
        (["--false-alarms", "never"], "--false-alarms: 'never' is neither a rate"),
        (["--columns", "x"], "--columns: 'x' is not NAME:KIND with a kind of numeric, category"),
        (["--columns", "x:real"], "--columns: 'x:real' is not NAME:KIND with a kind of numeric, category"),
        (["--columns", "y:numeric"], "ref.csv: there is no column 'y'"),
        (["--timestamp", "at"], "data.csv: there is no column 'at' for --timestamp"),
        (["--html", "/nowhere/report.html"], "--html: /nowhere/report.html: No such file or directory"),
        (["--data", "nobody.csv"], "nobody.csv: No such file or directory"),
        (["--data", "/proc/self/fdinfo"], "/proc/self/fdinfo: the folder holds no file that ends with one of"),
    ],
)
def test_wrong_input_is_a_sentence_and_code_2(
    files: list[str], options: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*files, *options]) == 2
    out, err = capsys.readouterr()
    assert (out, fault in err, len(err.splitlines())) == ("", True, 1)


def test_it_is_a_command_of_the_program(files: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "otel_mlmon", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("It would have alerted")


def table_of(path: Path, rows: int, *columns: str, shift: float = 0.0) -> str:
    """Writes a CSV file of normal columns; returns its name."""
    values = {name: normal(rows, seed=number) + shift for number, name in enumerate(columns, start=rows)}
    lines = [",".join(columns), *(",".join(f"{value:.4f}" for value in row) for row in zip(*values.values()))]  # noqa: B905
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


GATE = "--fail-on-alarm"
TOO_FEW = "only 50 values are judged: no shift, however large, would be found in a day of this data"


@pytest.mark.parametrize(
    ("columns", "rows", "options", "code", "reasons"),
    [
        ("x,y", 3_000, [], 0, []),
        ("x,y", 3_000, [GATE], 0, []),
        ("x,y", 3_000, [GATE, "--require", "x,y"], 0, []),
        ("x", 3_000, [], 0, []),
        ("x", 3_000, [GATE], 3, ["y: not in the data"]),
        ("x", 3_000, [GATE, "--columns", "y:ignore"], 0, []),
        ("x", 3_000, ["--require", "x"], 0, []),
        ("x", 3_000, ["--require", "y"], 3, ["y: not in the data"]),
        ("x,y", 3_000, ["--columns", "y:ignore", "--require", "y"], 3, ["y: ignored by --columns"]),
        ("x,y,z", 3_000, ["--require", "z"], 3, ["z: not in the reference"]),
        ("x,y", 0, [], 0, []),
        ("x,y", 0, [GATE], 3, ["x: the data has no rows", "y: the data has no rows"]),
        ("x,y", 500, [GATE], 0, []),
        ("x,y", 50, [GATE], 3, [f"{name}: {TOO_FEW}" for name in "xy"]),
        ("x,y", 50, ["--require", "x"], 3, [f"{name}: {TOO_FEW}" for name in "xy"]),
    ],
)  # fmt: skip
def test_a_gate_passes_nothing_that_was_not_judged(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    columns: str,
    rows: int,
    options: list[str],
    code: int,
    reasons: list[str],
) -> None:
    reference = table_of(tmp_path / "ref.csv", 5_000, "x", "y")
    data = table_of(tmp_path / "data.csv", rows, *columns.split(","))
    assert cli.main(["backtest", "--reference", reference, "--data", data, *options]) == code
    err = capsys.readouterr().err.splitlines()
    assert err == (["Not judged:", *reasons] if reasons else [])


def test_an_alarm_goes_before_what_was_not_judged(tmp_path: Path) -> None:
    reference = table_of(tmp_path / "ref.csv", 5_000, "x", "y")
    data = table_of(tmp_path / "data.csv", 3_000, "x", shift=2.0)
    assert cli.main(["backtest", "--reference", reference, "--data", data, GATE]) == 1


@pytest.mark.parametrize("in_reference", [True, False])
@pytest.mark.parametrize("in_data", [True, False])
@pytest.mark.parametrize("kind", [pa.null(), pa.float64(), pa.string(), pa.bool_(), pa.timestamp("us")])
def test_a_column_without_a_value_is_judged_or_left_out_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: pa.DataType, *, in_reference: bool, in_data: bool
) -> None:
    paths = []
    for name, is_empty, shift in (("ref", in_reference, 0.0), ("data", in_data, 2.0)):
        rows = 4_000
        empty = pa.nulls(rows, kind) if is_empty else pa.array(normal(rows, seed=7) * 9 + 40)
        if kind == pa.string() and not is_empty:
            empty = pa.array(["a", "b"] * (rows // 2))
        paths.append(tmp_path / f"{name}.parquet")
        parquet.write_table(pa.table({"amount": normal(rows, seed=8) + shift, "empty": empty}), paths[-1])
    is_time = kind == pa.timestamp("us") and (in_reference or in_data)
    code = cli.main(["backtest", "--reference", str(paths[0]), "--data", str(paths[1]), "--json", GATE])
    out, err = capsys.readouterr()
    if is_time and not in_reference:
        assert (code, "column 'empty' is timestamp[us], and its reference is numeric" in err) == (2, True)
        return
    streams = {row["stream"]: row for row in json.loads(out)["streams"]}
    assert (code, streams["amount"]["state"]) == (1, "alarm")
    # Of what is always missing nobody knows how values would come.
    quiet = {"weak"} if in_reference else {"ok", "weak"}
    assert streams["empty"]["state"] in ({"left_out"} if is_time else quiet if in_reference == in_data else {"alarm"})
