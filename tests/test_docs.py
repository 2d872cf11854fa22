"""What is generated from code is up to date."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
assert SPEC is not None
assert SPEC.loader is not None
GENERATE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(GENERATE)


@pytest.mark.parametrize("path", list(GENERATE.PAGES), ids=lambda path: path.name)
def test_a_generated_page_is_what_the_code_generates(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == GENERATE.PAGES[path](), "run `make docs`"
