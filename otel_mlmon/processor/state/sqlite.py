"""State on disk: keyed blobs in one SQLite database, one transaction a commit.

SQLite in write-ahead mode. After `commit` returns, `kill -9` loses nothing under any `synchronous`; a power
cut loses nothing under `FULL` only, which waits for the disk once a commit. Whoever acknowledges requests
commits many at once.
Source: https://www.sqlite.org/pragma.html#pragma_synchronous, https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from otel_mlmon.errors import StoreError

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x6D6C6D6E
"""`mlmn`: a database of somebody else is never written to."""
FILE_NAME: Final = "mlmon.sqlite3"

Synchronous = Literal["FULL", "NORMAL", "OFF"]


class Store:
    """Blobs by kind and key, kept in a directory that one process owns.

    Runs on: the thread that made it, and no other.

    Args:
        path: The directory; made if it is not there.
        synchronous: What a commit waits for, see the module.

    Raises:
        StoreError: The directory cannot be used, is in use, or holds state of another version or of
        somebody else.
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "FULL") -> None:
        self._directory = Path(path)
        self._undo: list[Callable[[], None]] = []
        with self._told("cannot be opened"):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._directory / FILE_NAME, timeout=0.0, isolation_level=None)
        try:
            with self._told("cannot be opened"):
                self._open(synchronous)
        except StoreError:
            self._database.close()
            raise

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Set one blob; durable after `commit`.

        Raises:
            StoreError: The disk refused it.
        """
        self.put_many(kind, ((key, value),))

    def put_many(self, kind: str, blobs: Iterable[tuple[str, bytes]]) -> None:
        """Set blobs of one kind, each a key and a value; durable after `commit`.

        Raises:
            StoreError: The disk refused one; those before it are set.
        """
        with self._told("cannot be written"):
            self._begin()
            rows = ((kind, key, value) for key, value in blobs)
            self._database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", rows)

    def delete(self, kind: str, key: str) -> None:
        """Remove one blob, if it is there; durable after `commit`.

        Raises:
            StoreError: The disk refused it.
        """
        self.delete_many(kind, (key,))

    def delete_many(self, kind: str, keys: Iterable[str]) -> None:
        """Remove blobs of one kind, those that are there; durable after `commit`.

        Raises:
            StoreError: The disk refused it.
        """
        with self._told("cannot be written"):
            self._begin()
            rows = ((kind, key) for key in keys)
            self._database.executemany("DELETE FROM state WHERE kind = ? AND key = ?", rows)

    def prune(self, kind: str, before: str) -> int:
        """Remove the blobs of a kind whose keys sort before `before`; how many they were.

        Raises:
            StoreError: The disk refused it.
        """
        with self._told("cannot be written"):
            self._begin()
            statement = "DELETE FROM state WHERE kind = ? AND key < ?"
            return self._database.execute(statement, (kind, before)).rowcount

    def load(self, kind: str, since: str = "") -> dict[str, bytes]:
        """All blobs of a kind by key, in the order of keys, from key `since` on.

        Raises:
            StoreError: The disk refused it, or the database is damaged.
        """
        with self._told("cannot be read"):
            statement = "SELECT key, value FROM state WHERE kind = ? AND key >= ? ORDER BY key"
            return dict(self._database.execute(statement, (kind, since)))

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Call `undo` if the next commit fails."""
        self._undo.append(undo)

    def commit(self) -> None:
        """Make everything since the last commit durable, all of it or nothing.

        Raises:
            StoreError: The disk refused it; nothing of it is kept.
        """
        undos, self._undo = self._undo, []
        try:
            with self._told("cannot be written"):
                if self._database.in_transaction:
                    self._database.execute("COMMIT")
        except StoreError:
            self._roll_back(undos)
            raise

    def _roll_back(self, undos: list[Callable[[], None]]) -> None:
        with suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")
        for undo in undos:
            undo()

    def close(self) -> None:
        """Forget what is not committed, and release the directory; may be called again."""
        self._database.close()

    def _begin(self) -> None:
        if not self._database.in_transaction:
            self._database.execute("BEGIN")

    def _open(self, synchronous: Synchronous) -> None:
        run = self._database.execute
        # Held until the connection or the process ends, however it ends.
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("BEGIN EXCLUSIVE")
        owner, version = (run(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        is_new = not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not is_new and owner != APPLICATION_ID:
            raise StoreError(f"{self._directory / FILE_NAME} is a database of another program")
        if not is_new and version != SCHEMA_VERSION:
            raise StoreError(
                f"{self._directory / FILE_NAME} is of version {version}; this release knows {SCHEMA_VERSION}"
            )
        if is_new:
            run(
                "CREATE TABLE state (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,"
                " PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        run("COMMIT")
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {synchronous}")

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorname", "")
            if code.startswith("SQLITE_BUSY") or "locked" in str(error):
                raise StoreError(f"{self._directory} is in use by another processor") from error
            raise StoreError(f"{self._directory} {what}: {error}") from error
