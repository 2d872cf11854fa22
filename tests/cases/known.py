"""The cases that are known to be wrong: each is a strict expected failure until what it shows is mended."""

from __future__ import annotations

from typing import Final

KNOWN_WRONG: Final[dict[str, str]] = {}
"""What is wrong today, by case."""
