"""What is SQLite's own; the rest is tests/contracts/test_repositories.py."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import FORMAT_VERSION
from otel_mlmon.processor.state.sqlite import APPLICATION_ID, FILE_NAME, SqliteRepository


def test_a_database_of_an_older_release_is_refused_with_what_to_do_and_left_alone(tmp_path: Path) -> None:
    SqliteRepository(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(StoreError) as refusal:
        SqliteRepository(tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path / FILE_NAME} has state of format 2, and this release reads format {FORMAT_VERSION}: run the release"
        " that wrote it, or move the directory away to start without what was learned"
    )
    check = sqlite3.connect(tmp_path / FILE_NAME)
    pragmas = [check.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")]
    assert pragmas == [2, APPLICATION_ID]
    check.close()


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(StoreError, match="another program"):
        SqliteRepository(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteRepository(tmp_path)


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1), ("OFF", 0)])
def test_a_commit_waits_for_what_it_is_asked_to(tmp_path: Path, synchronous: str, level: int) -> None:
    repository = SqliteRepository(tmp_path, synchronous=synchronous)  # type: ignore[arg-type]
    modes = [repository._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    assert modes == [level, "wal"]
    repository.close()


def test_a_full_commit_is_the_default(tmp_path: Path) -> None:
    repository = SqliteRepository(tmp_path)
    assert repository._database.execute("PRAGMA synchronous").fetchone() == (2,)
    repository.close()
