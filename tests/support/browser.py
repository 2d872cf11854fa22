"""Lets a real Chromium look at pages: what it complains of, what axe-core finds, and whether they update themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import environment
from tests.support.programs import ROOT, skip_or_fail

PROGRAM = Path(__file__).with_name("browser_program.py")


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a browser saw."""

    faults: list[str]
    visited: dict[str, int] = field(default_factory=dict)
    """How many pages, by view."""
    axe_runs: int = 0
    seconds: float | None = None
    """How long it took until a page showed what was waited for."""


def crawl(address: str, *, views: Sequence[tuple[str, int]], most: int) -> Sight:
    """Follows every link from the first page, in each view."""
    with _start(address, views=views, most=most) as child:
        return _finish(child)


def watch(address: str, path: str, text: str, change: Callable[[], None]) -> Sight:
    """Opens a page, has something changed, and waits until the page shows a text, without being loaded again."""
    with _start(address, path=path, text=text) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        line = child.stdout.readline()
        assert line, "the browser ended"
        if json.loads(line)["event"] == "ready":
            change()
            child.stdin.write(json.dumps({"begin_s": time.time()}) + "\n")
            child.stdin.flush()
        return _finish(child)


def _start(address: str, **asked: Any) -> subprocess.Popen[str]:
    python, axe = ROOT / ".peers/venv/bin/python", ROOT / ".peers/node_modules/axe-core/axe.min.js"
    if not python.exists() or not axe.exists():
        skip_or_fail("no browser's driver or no axe-core: make sentry-peers")
    if shutil.which("chromium") is None:
        skip_or_fail("no browser: apt-get install chromium")
    child = subprocess.Popen(
        [str(python), str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps({"address": address, "axe": str(axe), **asked}) + "\n")
    child.stdin.flush()
    return child


def _finish(child: subprocess.Popen[str]) -> Sight:
    output, _ = child.communicate(timeout=500)
    assert child.returncode == 0, output
    document = json.loads(output.splitlines()[-1])
    assert document.pop("event") == "done"
    return Sight(**document)
