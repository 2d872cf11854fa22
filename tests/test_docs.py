"""What is generated from code is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate


@pytest.mark.parametrize("path", list(generate.PAGES), ids=lambda path: path.name)
def test_a_generated_page_is_what_the_code_generates(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate.PAGES[path](), "run `make docs`"
