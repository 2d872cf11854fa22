"""The metrics against other releases of OpenTelemetry's SDK, whose private layout the fast way depends on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.processes import environment

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent.parent
SDKS = sorted(path.parent.parent.name for path in (ROOT / ".sdks").glob("*/bin/python"))


@pytest.mark.parametrize("version", SDKS or [pytest.param("", marks=pytest.mark.skip(reason="no SDKs: make sdks"))])
@pytest.mark.timeout(300)
def test_the_fast_way_holds(version: str) -> None:
    done = subprocess.run(
        [
            str(ROOT / ".sdks" / version / "bin" / "python"),
            "-m", "pytest", "-q", "-W", "default::DeprecationWarning", "-p", "no:cacheprovider",
            "tests/instrumentation/export", "tests/contracts/test_metric_readers.py",
        ],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
