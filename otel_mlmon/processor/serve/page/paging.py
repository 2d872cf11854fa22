"""Cuts many rows into pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """One page of many rows."""

    rows: Sequence[Any]
    number: int
    count: int
    total: int


def cut_page(rows: Sequence[Any], number: int, length: int) -> Paging:
    """Cuts page `number` (from 1) of `length` rows; the nearest there is."""
    count = max(1, -(-len(rows) // length))
    number = min(max(number, 1), count)
    return Paging(rows=rows[(number - 1) * length : number * length], number=number, count=count, total=len(rows))
