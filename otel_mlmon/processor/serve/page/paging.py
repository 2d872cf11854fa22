"""Divides the rows of a table into pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """One page of a table with many rows."""

    rows: Sequence[Any]
    number: int
    count: int
    total: int


def cut_table_page(rows: Sequence[Any], number: int, length: int) -> Paging:
    """Returns page `number` (from 1) of a table with `length` rows, or the nearest that exists."""
    count = max(1, -(-len(rows) // length))
    number = min(max(number, 1), count)
    return Paging(rows=rows[(number - 1) * length : number * length], number=number, count=count, total=len(rows))
