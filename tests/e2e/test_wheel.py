"""The wheel that the README tells to build holds the whole package, and every module of it can be imported."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import otel_mlmon
assert otel_mlmon.__file__.startswith(sys.argv[1]), otel_mlmon.__file__
names = [module.name for module in pkgutil.walk_packages(otel_mlmon.__path__, "otel_mlmon.")]
names.remove("otel_mlmon.__main__")
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    package = ROOT / "otel_mlmon"
    files = {
        path.relative_to(ROOT) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in files if not (site / path).is_file()} == set()
    runbooks = {path.name for path in (site / "otel_mlmon/processor/serve/page/runbooks").iterdir()}
    assert runbooks == {path.name for path in (ROOT / "docs" / "runbooks").iterdir()}
    run = [sys.executable, "-W", "error", "-c", IMPORT_ALL, str(site)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == sum(path.suffix == ".py" for path in files) - 2  # `otel_mlmon` itself, and `__main__`
