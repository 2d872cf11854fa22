"""Stores the processor's state in one SQLite database, one transaction a commit.

SQLite runs in write-ahead mode. After `commit` returns, `kill -9` loses nothing under any `synchronous`; a power cut
loses nothing under `FULL` only, which waits for the disk once a commit. Whoever acknowledges requests commits many at
once.
Source: https://www.sqlite.org/pragma.html#pragma_synchronous, https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.migrations import MIGRATIONS, Migration
from otel_mlmon.processor.state.repository import FORMAT_VERSION

APPLICATION_ID: Final = 0x6D6C6D6E
"""`mlmn`: a database of another program is never written to."""
FILE_NAME: Final = "mlmon.sqlite3"
LOCK_NAME: Final = "owner.lock"
"""A database without tables, locked by the one process that may write."""

_LOG: Final = logging.getLogger("otel_mlmon.processor")

Synchronous = Literal["FULL", "NORMAL", "OFF"]


class SqliteRepository:
    """A state store in an SQLite database, in a directory that one process owns.

    Runs on: the thread that opened it, and no other.

    Args:
        directory: Made if it is missing.
        synchronous: How durable a commit is, as in the module's docstring.
        format_version: The version of the records.
        migrations: How older versions are brought to the next; None for those of this release.

    Raises:
        StoreError: The directory cannot be used, is in use, or holds state of another format or another program.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "FULL",
        format_version: int = FORMAT_VERSION,
        migrations: Mapping[int, Migration] | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._undo: list[Callable[[], None]] = []
        with self._convert_store_errors("cannot be opened"):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = open_private_database(self._directory / LOCK_NAME)
            # Held until the connection or the process ends, however it ends; the state itself can be read meanwhile.
            self._lock.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            with self._convert_store_errors("cannot be opened"):
                self._lock.execute("BEGIN EXCLUSIVE")
                self._database = open_private_database(self._directory / FILE_NAME)
        except StoreError:
            self._lock.close()
            raise
        try:
            with self._convert_store_errors("cannot be opened"):
                self._open_database(synchronous, format_version, MIGRATIONS if migrations is None else migrations)
        except StoreError:
            self.close()
            raise

    def put(self, kind: str, records: Iterable[tuple[str, bytes]], /) -> None:
        """Adds records of one kind to the database, or replaces those of the same keys.

        Raises:
            StoreError: The disk refused one; all changes since the last commit are rolled back.
        """
        with self._convert_write_errors():
            self._begin_transaction()
            rows = ((kind, key, value) for key, value in records)
            self._database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", rows)

    def delete(self, kind: str, keys: Iterable[str], /) -> None:
        """Removes records by their keys from the database; keys without a record are ignored.

        Raises:
            StoreError: The disk refused it; all changes since the last commit are rolled back.
        """
        with self._convert_write_errors():
            self._begin_transaction()
            rows = ((kind, key) for key in keys)
            self._database.executemany("DELETE FROM state WHERE kind = ? AND key = ?", rows)

    def prune(self, kind: str, before: str, /) -> int:
        """Removes the records of a kind whose keys sort before `before`; returns the number of removed ones.

        Raises:
            StoreError: The disk refused it; all changes since the last commit are rolled back.
        """
        with self._convert_write_errors():
            self._begin_transaction()
            statement = "DELETE FROM state WHERE kind = ? AND key < ?"
            return self._database.execute(statement, (kind, before)).rowcount

    def load(self, kind: str, since: str = "", until: str | None = None, /) -> dict[str, bytes]:
        """Returns the stored records of a kind by key, in their order, from `since` to before `until`.

        Raises:
            StoreError: The disk refused it, or the database is damaged.
        """
        with self._convert_store_errors("cannot be read"):
            if until is None:
                statement = "SELECT key, value FROM state WHERE kind = ? AND key >= ? ORDER BY key"
                return dict(self._database.execute(statement, (kind, since)))
            statement = "SELECT key, value FROM state WHERE kind = ? AND key >= ? AND key < ? ORDER BY key"
            return dict(self._database.execute(statement, (kind, since, until)))

    def on_rollback(self, undo: Callable[[], None], /) -> None:
        """Has `undo` called if the changes since the last commit are rolled back."""
        self._undo.append(undo)

    def commit(self) -> None:
        """Makes all changes to the database since the last commit durable, or none of them.

        Raises:
            StoreError: The disk refused it; all changes are rolled back.
        """
        with self._convert_write_errors():
            if self._database.in_transaction:
                self._database.execute("COMMIT")
        self._undo = []

    def rollback(self) -> None:
        """Drops the changes to the database since the last commit."""
        with suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")
        undos, self._undo = self._undo, []
        for undo in reversed(undos):
            undo()

    def erase_deleted(self) -> None:
        """Rewrites the database file without the remains of records that were deleted and committed.

        Raises:
            StoreError: The disk refused it; it takes as much room again for a while.
        """
        with self._convert_store_errors("cannot be written"):
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Drops the changes since the last commit, and releases the database's directory."""
        self._database.close()
        self._lock.close()

    def _begin_transaction(self) -> None:
        if not self._database.in_transaction:
            self._database.execute("BEGIN")

    def _open_database(
        self, synchronous: Synchronous, format_version: int, migrations: Mapping[int, Migration]
    ) -> None:
        run = self._database.execute
        run("BEGIN EXCLUSIVE")
        application_id, version = (run(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        path = self._directory / FILE_NAME
        is_new = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not is_new and application_id != APPLICATION_ID:
            raise StoreError(f"{path} is a database of another program: set storage.path to another directory")
        if not is_new:
            require_known_format(path, version, format_version=format_version, migrations=migrations)
        if is_new:
            run(
                "CREATE TABLE state (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,"
                " PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            run(f"PRAGMA application_id = {APPLICATION_ID}")
        elif version < format_version:
            run("COMMIT")
            _replace_backup(path, self._directory / f"mlmon-format-{version}.sqlite3")
            run("BEGIN EXCLUSIVE")
            for step in range(version, format_version):
                migrations[step](self)
            _LOG.warning("The state in %s was migrated from format %d to %d.", path, version, format_version)
        run(f"PRAGMA user_version = {format_version}")
        run("COMMIT")
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {synchronous}")

    @contextmanager
    def _convert_write_errors(self) -> Iterator[None]:
        """Rolls all changes back where a write fails, as SQLite itself does on some errors only."""
        try:
            with self._convert_store_errors("cannot be written"):
                yield
        except StoreError:
            self.rollback()
            raise

    @contextmanager
    def _convert_store_errors(self, problem: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if is_lock_error(error):
                raise StoreError(f"{self._directory} is in use by another processor") from error
            raise StoreError(f"{self._directory} {problem}: {error}") from error


def is_lock_error(error: Exception) -> bool:
    """Returns whether SQLite failed only because another connection holds the database."""
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY") or "locked" in str(error)


def require_known_format(
    path: Path,
    version: int,
    *,
    format_version: int = FORMAT_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> None:
    """Checks that state of a format can be read, or migrated to the present one.

    Raises:
        StoreError: It cannot be.
    """
    if version > format_version or any(step not in migrations for step in range(version, format_version)):
        raise StoreError(
            f"{path} has state of format {version}, and this release reads format {format_version}: run the release"
            " that wrote it, or move the directory away to start without what was learned"
        )


def backup_database(source: Path, target: Path) -> None:
    """Copies an SQLite database as it is at one moment, while others read and write it.

    Raises:
        StoreError: One of the two cannot be used, or `target` exists.
    """
    if not source.exists():
        raise StoreError(f"{source} does not exist")
    if target.exists():
        raise StoreError(f"{target} exists already")
    try:
        reader, writer = (
            sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True),
            open_private_database(target),
        )
        try:
            reader.backup(writer)
        finally:
            reader.close()
            writer.close()
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be copied to {target}: {error}") from error


def _replace_backup(source: Path, target: Path) -> None:
    """Copies an SQLite database whole or not at all, over what a failed or killed attempt has left."""
    draft = target.with_suffix(".part")
    draft.unlink(missing_ok=True)
    try:
        backup_database(source, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def open_private_database(path: Path) -> sqlite3.Connection:
    """Opens an SQLite database that only its owner may read, and so the files that SQLite puts beside it."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    return sqlite3.connect(path, timeout=0.0, isolation_level=None)
