"""Every code block of the README is run: Python blocks here, commands by the suite that the table names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.partition("#")[0].strip()
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
    if line.partition("#")[0].strip()
]

RUN_BY = {
    "make demo": "tests/e2e/test_demo.py",
    "make test": "this very run",
    'pip install ".[all]"': "make setup, which installs the same extra",
    "pip wheel --no-deps --wheel-dir dist .": "tests/e2e/test_wheel.py",
    "otel-mlmon processor": "tests/e2e/test_processor.py",
}
"""A command of the README and what runs it."""


def test_every_language_is_one_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh"}


def test_every_command_is_run_somewhere() -> None:
    assert set(COMMANDS) == set(RUN_BY)
    for place in RUN_BY.values():
        assert not place.startswith("tests/") or (ROOT / place).exists()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_a_make_target_exists(command: str) -> None:
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_a_python_block_runs_and_leaves_nothing_on_standard_output_but_its_own(code: str, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},  # nobody listens there
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout) == ("print(" in code)


def test_the_costs_are_those_that_were_measured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    quoted = [line for line in readme.splitlines() if line.startswith("| 10→16→4, batch 1 |")]
    assert quoted
    assert [line for line in quoted if line not in measured] == []
