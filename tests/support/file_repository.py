"""A repository that is no part of the package: all records in one file, replaced as a whole by each commit."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import FORMAT_VERSION

Records = dict[tuple[str, str], bytes]


class FileRepository:
    """Keeps records in `records.pickle`, and a lock on the directory's file beside it."""

    def __init__(self, directory: Path, *, format_version: int = FORMAT_VERSION) -> None:
        self._version = format_version
        self._path = directory / "records.pickle"
        self._undo: list[Callable[[], None]] = []
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StoreError(f"{directory} is in use by another processor") from error
        except OSError as error:
            raise StoreError(f"{directory} cannot be opened: {error}") from error
        version, self._records = self._read()
        if version != format_version:
            self._lock.close()
            raise StoreError(f"{self._path} has state of format {version}, and this release reads {format_version}")

    def put(self, kind: str, records: Iterable[tuple[str, bytes]], /) -> None:
        self._records |= {(kind, key): value for key, value in records}

    def delete(self, kind: str, keys: Iterable[str], /) -> None:
        for key in keys:
            self._records.pop((kind, key), None)

    def prune(self, kind: str, before: str, /) -> int:
        old = [key for key in self.load(kind) if key < before]
        self.delete(kind, old)
        return len(old)

    def load(self, kind: str, since: str = "", until: str | None = None, /) -> dict[str, bytes]:
        if self._lock.closed:
            raise StoreError("the repository is closed")
        rows = sorted(self._records.items())
        return {
            key: value
            for (row_kind, key), value in rows
            if row_kind == kind and key >= since and (until is None or key < until)
        }

    def on_rollback(self, undo: Callable[[], None], /) -> None:
        self._undo.append(undo)

    def commit(self) -> None:
        try:
            scratch = self._path.with_suffix(".new")
            scratch.write_bytes(pickle.dumps((self._version, self._records)))
            os.replace(scratch, self._path)  # noqa: PTH105
        except OSError as error:
            self.rollback()
            raise StoreError(f"{self._path} cannot be written: {error}") from error
        self._undo = []

    def rollback(self) -> None:
        _, self._records = self._read()
        undos, self._undo = self._undo, []
        for undo in reversed(undos):
            undo()

    def close(self) -> None:
        self._lock.close()

    def _read(self) -> tuple[int, Records]:
        if not self._path.exists():
            return self._version, {}
        version, records = pickle.loads(self._path.read_bytes())
        return version, records
