"""Programs that do not come with the package: found, or the test is skipped with what brings them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent.parent


def skip_or_fail(message: str) -> NoReturn:
    """Skip the test; in CI, where everything is installed, fail it."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def program(name: str, remedy: str) -> Path:
    """A program on the path or in `.collector/`; `remedy` is the command that would bring it."""
    built = ROOT / ".collector" / name
    path = str(built) if built.exists() else shutil.which(name)
    if path is None:
        skip_or_fail(f"no {name}: {remedy}")
    return Path(path)


def require_root() -> None:
    """For tests that mount file systems or change users."""
    if os.geteuid() != 0:
        skip_or_fail("not root: sudo make e2e")
