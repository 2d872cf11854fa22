"""The repository is laid out as CONTRIBUTING says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TOP_LEVEL = {
    ".changelog", ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
    "benchmarks", "collector-config", "docs", "examples", "otel_mlmon", "pyproject.toml", "tests",
}  # fmt: skip


def tracked() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: run the suite from a clone")
    return listing.stdout.split()


def test_nothing_else_stands_at_the_top() -> None:
    assert {name.split("/")[0] for name in tracked()} == TOP_LEVEL


def test_tests_mirror_the_package() -> None:
    own = {"conftest.py", "support", "contracts", "cases", "tools", "e2e"}
    for name in tracked():
        path = Path(name)
        if path.parts[0] != "tests" or path.parts[1] in own or len(path.parts) == 2:
            continue
        folder = ROOT / "otel_mlmon" / Path(*path.parts[1:-1])
        subject = path.stem.removeprefix("test_")
        modules = {module.stem for module in folder.glob("*.py")} | {child.name for child in folder.iterdir()}
        mirrored = any(subject == module or subject.startswith(f"{module}_") for module in {*modules, folder.name})
        assert mirrored, f"{name} mirrors no module"


def test_no_machine_path_and_no_registry_address_is_committed() -> None:
    forbidden = re.compile(r"(/(?:root|home|work)/[a-z]|extra-index-url|--index-url|pypi\.org/simple)")
    found = []
    for name in tracked():
        path = ROOT / name
        if path.suffix in {".onnx", ".npz", ".png"} or name == "tests/test_repository.py" or not path.exists():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if forbidden.search(line):
                found.append(f"{name}:{number}")
    assert found == []


def test_every_change_fragment_has_a_kind_that_the_changelog_knows() -> None:
    for path in (ROOT / ".changelog").iterdir():
        if path.name != ".gitignore":
            assert re.fullmatch(r"\+?[a-z0-9-]+\.(added|changed|fixed|removed)\.md", path.name), path.name
