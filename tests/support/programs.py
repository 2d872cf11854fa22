"""Finds programs that do not come with the package, or skips the test and names what would install them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent.parent


def skip_or_fail(message: str) -> NoReturn:
    """Skips the test; in CI, where everything is installed, fails it."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def program(name: str, remedy: str) -> Path:
    """Returns the path of a program, from the path or `.collector/`; `remedy` is the command that installs it."""
    built = ROOT / ".collector" / name
    path = str(built) if built.exists() else shutil.which(name)
    if path is None:
        skip_or_fail(f"no {name}: {remedy}")
    return Path(path)


def require_root() -> None:
    """Skips tests that need root, to mount file systems or change users."""
    if os.geteuid() != 0:
        skip_or_fail("not root: sudo make e2e")
