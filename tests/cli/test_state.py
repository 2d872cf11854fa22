"""`otel-mlmon state`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from otel_mlmon.cli import main
from otel_mlmon.processor.state.sqlite import FILE_NAME
from tests.tools.freeze_state import freeze


def test_check_repair_export_backup_and_forget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy.sqlite3"
    data.mkdir()
    freeze(data / FILE_NAME)

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["state", *words[:1], "--path", str(data), *words[1:]])
        return code, capsys.readouterr().out

    assert run("check")[0] == 0
    code, lines = run("export")
    assert (code, all(json.loads(line)["kind"] for line in lines.splitlines())) == (0, True)
    assert run("backup", str(copy))[0] == 0
    database = sqlite3.connect(data / FILE_NAME)
    database.execute("UPDATE state SET value = x'00' WHERE kind = 'evidence'")
    database.commit()
    database.close()
    code, out = run("check")
    assert (code, "a stored SliceRecord is damaged" in out) == (1, True)
    assert run("repair")[0] == 1  # what was set aside is still there to look at
    assert run("forget", "shop")[0] == 0
    assert run("forget", "shop")[0] == 1
    assert (copy.exists(), main(["state", "check", "--path", str(tmp_path / "none")])) == (True, 2)
