"""What every command does about its own output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from otel_mlmon import cli
from otel_mlmon.reference.profile import Profile

PROGRAM = (sys.executable, "-m", "otel_mlmon")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile, and a table."""
    Profile.from_data(model="m", features={"x": np.arange(9.0)}).write_file(tmp_path / "m.reference.json")
    (tmp_path / "x.csv").write_text("x\n" + "1\n2\n3\n" * 500)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "check-config --print-defaults",
        "settings",
        "reference show m.reference.json",
        "backtest --reference x.csv --data x.csv --fail-on-alarm",
        "backtest --reference x.csv --data x.csv --json",
    ],
)
def test_a_reader_that_has_enough_is_no_fault(folder: Path, words: str) -> None:
    child = subprocess.Popen(
        [*PROGRAM, *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    assert child.stdout is not None
    child.stdout.close()
    with child:
        assert child.wait(timeout=60) == cli.BROKEN_PIPE
        assert child.stderr is not None
        assert child.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_an_output_that_takes_nothing_is_a_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "settings"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (cli.USAGE_ERROR, "otel-mlmon: [Errno 28] No space left on device\n")


def test_an_output_that_is_closed_is_done_without() -> None:
    closed = "import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", closed, *PROGRAM, "settings"], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "command"),
    [("state check folder", "state check"), ("alert list --neat", "alert list"), ("demo x", "demo")],
)
def test_an_unknown_argument_shows_the_usage_of_its_command(
    capsys: pytest.CaptureFixture[str], words: str, command: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (cli.USAGE_ERROR, "")
    assert printed.err.startswith(f"usage: otel-mlmon {command} ")
    assert printed.err.endswith(f"\notel-mlmon {command}: error: unrecognized arguments: {words.split()[-1]}\n")
