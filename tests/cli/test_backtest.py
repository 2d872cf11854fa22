from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
