from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from otel_mlmon import cli
from otel_mlmon.processor.config.render import render_default_yaml


def test_a_right_file_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mlmon.yaml"
    path.write_text("models: {fraud: {}}\n")
    assert cli.main(["check-config", "--config", str(path)]) == 0
    assert capsys.readouterr() == (f"{path}: valid. Models: fraud. Notifiers: log, otlp.\n", "")


def test_no_file_is_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config"]) == 0
    assert capsys.readouterr().out == "the defaults: valid. Models: *. Notifiers: log, otlp.\n"


def test_all_faults_go_to_stderr_and_the_code_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mlmon.yaml"
    path.write_text("wbe: {}\nlimits: {max_streams: 0}\n")
    assert cli.main(["check-config", "--config", str(path)]) == 2
    assert capsys.readouterr() == (
        "",
        f"{path}:1: wbe: is not a known key (did you mean `web`?)\n"
        f"{path}:2: limits.max_streams: must be 1 or above, got '0'\n",
    )


def test_the_defaults_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "--print-defaults"]) == 0
    assert capsys.readouterr().out == render_default_yaml()


@pytest.mark.parametrize("words", [[], ["chekc-config"], ["check-config", "--confg", "x"]])
def test_wrong_use_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: otel-mlmon" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(name in out for name in cli.COMMANDS)


def test_an_extra_that_is_not_installed_is_named_with_what_to_do() -> None:
    # A process of its own, in which pydantic cannot be imported.
    program = (
        "import sys; sys.modules['pydantic'] = None; from otel_mlmon.cli import main; sys.exit(main(['check-config']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'otel-mlmon: pydantic is not installed: pip install "otel-mlmon[processor]"\n'
