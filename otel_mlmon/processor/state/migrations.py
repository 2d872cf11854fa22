"""Migrates stored records from one format to the next, since the format that the first release writes.

A change that old records cannot be read with raises `FORMAT_VERSION` and adds a function here that rewrites the records
of the version before. All of them run in one transaction with the new version number, after a copy of the database was
made beside it. A field with a default that is added to a record needs no migration: it is read as its default.

`tests/support/state` holds a store of the first format; `tests/tools/freeze_state.py` makes one of the present format,
and `tests/processor/state/test_migrations.py` loads all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from otel_mlmon.processor.state.repository import Repository

Migration: TypeAlias = Callable[[Repository], None]
"""Rewrites the records of one format as those of the next; must not commit."""

MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""By the format that is migrated from."""
