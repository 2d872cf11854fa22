"""Packages that add a part from outside, as an installation would leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.processes import run_python


def install(folder: Path, code: str, *, group: str, name: str, attribute: str) -> None:
    """Installs a distribution of one module, `added_part`, whose `attribute` is the part called `name` of `group`."""
    metadata = folder / "added_part-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: added-part\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = added_part:{attribute}\n")
    (folder / "added_part.py").write_text(code)


def run_beside(folder: Path, script: str) -> Any:
    """Runs a program that finds what is installed in `folder`, and returns the JSON that it printed last."""
    finished = run_python(["-c", script], cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])
