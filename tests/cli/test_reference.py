from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from otel_mlmon import cli
from otel_mlmon.reference.embedding import find_embedded_profile, read_model_metadata
from otel_mlmon.reference.profile import Profile
from tests.support import models

ROWS = 120


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and its training data as a table and as arrays."""
    monkeypatch.chdir(tmp_path)
    Path("fraud.onnx").write_bytes(models.softmax(classes=3, metadata={"names": "['ant', 'bee', 'cow']"}))
    rows = np.random.default_rng(5).normal(size=(ROWS, 3)).round(3)
    truth = [("ant", "bee", "cow")[code] for code in rows.argmax(axis=1)]
    truth[0] = "cow" if truth[0] != "cow" else "ant"
    lines = [",".join(map(str, row)) + f",{label}" for row, label in zip(rows.tolist(), truth, strict=True)]
    Path("train.csv").write_text("\n".join(["age,income,debt,kind", *lines]) + "\n")
    np.savez("train.npz", rows=rows)
    Profile.from_data(model="fraud", labels=["ant"]).write_file("profile.json")
    Path("labels.csv").write_text("\n".join(["kind", *truth]) + "\n")
    return tmp_path


def test_from_a_model_and_a_table_to_a_profile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reference", "build", "fraud.onnx", "train.csv", "--labels", "kind"]) == 0
    out, err = capsys.readouterr()
    version = Profile.read_file("fraud.reference.json").version
    assert out == (
        f"fraud {version}: 120 rows, 5 streams: fraud.reference.json\naccuracy 99.17 % of 120 labelled rows\n"
    )
    assert re.fullmatch("[0-9a-f]{12}", version)
    assert "The features are named f0 (age) and so on" in err
    profile = Profile.read_file("fraud.reference.json")
    assert sorted(profile.streams) == [
        "input.f0", "input.f1", "input.f2", "prediction.confidence", "prediction.label",
    ]  # fmt: skip
    assert {sketch.total for sketch in profile.streams.values()} == {ROWS}


def test_a_table_and_arrays_give_the_same_profile(folder: Path) -> None:
    assert cli.main(["reference", "build", "fraud.onnx", "train.csv", "--labels", "kind", "-o", "a.json"]) == 0
    assert cli.main(["reference", "build", "fraud.onnx", "train.npz", "--labels", "labels.csv", "-o", "b.json"]) == 0
    one, other = Profile.read_file("a.json"), Profile.read_file("b.json")
    assert (one.streams, one.calibration) == (other.streams, other.calibration)


def test_the_model_carries_its_profile_and_show_reads_either(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reference", "build", "fraud.onnx", "train.csv", "--labels", "kind", "--features", "header"]
    assert cli.main([*words, "-o", "p.json", "--embed", "carrying.onnx"]) == 0
    assert "p.json, carrying.onnx" in capsys.readouterr().out
    assert find_embedded_profile(read_model_metadata(Path("carrying.onnx").read_bytes())) == Profile.read_file("p.json")
    assert cli.main(["reference", "show", "p.json"]) == 0
    shown = capsys.readouterr().out
    assert "input.age" in shown
    assert "ant" in shown
    assert cli.main(["reference", "show", "carrying.onnx"]) == 0
    assert capsys.readouterr().out == shown
    assert cli.main(["reference", "embed", "p.json", "fraud.onnx", "-o", "again.onnx"]) == 0
    assert Path("again.onnx").read_bytes() == Path("carrying.onnx").read_bytes()
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_only_a_model_is_written_where_only_one_is_asked_for(folder: Path) -> None:
    assert cli.main(["reference", "build", "fraud.onnx", "train.npz", "--embed", "carrying.onnx"]) == 0
    assert not Path("fraud.reference.json").exists()


def test_what_the_application_says_is_said_here_too(folder: Path) -> None:
    words = ["--name", "risk", "--model-version", "3", "--features", "a,b,c", "--categorical", "c", "-o", "p.json"]
    assert cli.main(["reference", "build", "fraud.onnx", "train.npz", *words]) == 0
    profile = Profile.read_file("p.json")
    assert (profile.model, profile.version) == ("risk", "3")
    assert profile.streams["input.c"].categories.total == ROWS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "none.onnx", "train.csv"], "none.onnx: No such file"),
        (["build", "fraud.onnx", "none.csv"], "none.csv: No such file or directory"),
        (["build", "fraud.onnx", "train.csv"],
         "train.csv has 4 columns for the input input (age, income, debt, kind); it takes 3."),
        (["build", "fraud.onnx", "train.csv", "--labels", "sort"], "--labels: train.csv has no column sort"),
        (["build", "fraud.onnx", "train.csv", "--columns", "age,sex"], "train.csv has no column sex"),
        (["build", "fraud.onnx", "train.csv", "--columns", "age,income,kind"], "train.csv:2: column kind: "),
        (["build", "fraud.onnx", "train.csv", "--labels", "kind", "--input", "x"], "the model has no input 'x'"),
        (["build", "fraud.onnx", "train.npz", "--output-kind", "odds"], "output_kind must be one of"),
        (["build", "fraud.onnx", "train.npz", "--embed", "none/x.onnx"], "none/x.onnx: No such file"),
        (["build", "fraud.onnx", "train.npz", "-o", "none/x.json"], "none/x.json: No such file"),
        (["build", "fraud.onnx", "train.npz", "-o", "."], ".: Is a directory"),
        (["build", "fraud.onnx", "train.npz", "--embed", "/"], "/: Is a directory"),
        (["build", "..", "train.csv"], "..: Is a directory"),
        (["embed", "profile.json", "train.csv", "-o", "x.onnx"], "train.csv: not an ONNX model"),
        (["show", "none.json"], "none.json: No such file"),
        (["show", "fraud.onnx"], "fraud.onnx: carries no reference profile"),
        (["show", "train.csv"], "train.csv: not JSON"),
        (["embed", "train.csv", "fraud.onnx", "-o", "x.onnx"], "train.csv: not JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_and_the_code_is_2(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["reference", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_without_onnxruntime_it_says_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(["reference", "build", "fraud.onnx", "train.csv"]) == 2
    assert 'pip install "otel-mlmon[onnxruntime]"' in capsys.readouterr().err


def test_rows_in_their_order_say_how_bursty_values_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3,000 rows in runs of 30 that are alike; in a file in any order, with the time of each."""
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(100, 3)).repeat(30, axis=0).round(3)
    times = [f"2026-01-{1 + row // 1_440:02}T{row // 60 % 24:02}:{row % 60:02}:00Z" for row in range(len(rows))]
    lines = [",".join([time, *map(str, row)]) for time, row in zip(times, rows.tolist(), strict=True)]
    Path("ordered.csv").write_text("\n".join(["age,income,debt", *(line.partition(",")[2] for line in lines)]) + "\n")
    Path("timed.csv").write_text("\n".join(["at,age,income,debt", *rng.permutation(lines)]) + "\n")
    assert cli.main(["reference", "build", "fraud.onnx", "timed.csv", "--time", "at", "-o", "timed.json"]) == 0
    assert "values come in bursts of φ" in capsys.readouterr().out
    assert cli.main(["reference", "build", "fraud.onnx", "ordered.csv", "--in-order", "-o", "ordered.json"]) == 0
    assert cli.main(["reference", "build", "fraud.onnx", "ordered.csv", "-o", "any.json"]) == 0
    assert "(φ) is not in the profile: rows may be in any order" in capsys.readouterr().err
    timed, ordered, unordered = (Profile.read_file(f"{name}.json") for name in ("timed", "ordered", "any"))
    assert timed.design_effects == ordered.design_effects
    assert sorted(timed.design_effects) == sorted(timed.streams)
    assert all(10.0 < effect.estimate < 90.0 for effect in timed.design_effects.values())
    assert unordered.design_effects == {}
    assert timed.streams == ordered.streams == unordered.streams


def test_few_rows_say_nothing_of_bursts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reference", "build", "fraud.onnx", "train.csv", "--columns", "age,income,debt", "--in-order"]
    assert cli.main([*words, "-o", "p.json"]) == 0
    assert "(φ) is not in the profile: the rows are too few" in capsys.readouterr().err
    assert Profile.read_file("p.json").design_effects == {}


@pytest.mark.parametrize(("column", "fault"), [("when", "has no column when"), ("kind", "kind is no time: 'ant'")])
def test_a_column_that_is_no_time_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], column: str, fault: str
) -> None:
    lines = Path("train.csv").read_text().splitlines()
    Path("train.csv").write_text("\n".join([lines[0], lines[1].rpartition(",")[0] + ",ant", *lines[2:]]) + "\n")
    assert cli.main(["reference", "build", "fraud.onnx", "train.csv", "--time", column]) == 2
    assert fault in capsys.readouterr().err
