"""A repository for tests that keeps everything in memory, as long as the process lives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

_COMMITTED: dict[Path, dict[tuple[str, str], bytes]] = {}


class MemoryRepository:
    """Holds the records of one directory's name; nothing is written there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._records = dict(_COMMITTED.get(directory, {}))
        self._undo: list[Callable[[], None]] = []

    def put(self, kind: str, records: Iterable[tuple[str, bytes]], /) -> None:
        """Adds or replaces records."""
        self._records |= {(kind, key): value for key, value in records}

    def delete(self, kind: str, keys: Iterable[str], /) -> None:
        """Removes records."""
        for key in keys:
            self._records.pop((kind, key), None)

    def prune(self, kind: str, before: str, /) -> int:
        """Removes the records whose keys sort before `before`."""
        old = [key for key in self.load(kind) if key < before]
        self.delete(kind, old)
        return len(old)

    def load(self, kind: str, since: str = "", until: str | None = None, /) -> dict[str, bytes]:
        """Returns the records of a kind in the order of their keys, from `since` to before `until`."""
        records = {key: value for (name, key), value in sorted(self._records.items()) if name == kind and key >= since}
        return records if until is None else {key: value for key, value in records.items() if key < until}

    def on_rollback(self, undo: Callable[[], None], /) -> None:
        """Calls `undo` if the changes since the last commit are rolled back."""
        self._undo.append(undo)

    def commit(self) -> None:
        """Makes the changes visible to whoever opens the directory next."""
        _COMMITTED[self._directory] = dict(self._records)
        self._undo = []

    def rollback(self) -> None:
        """Drops the changes since the last commit."""
        self._records = dict(_COMMITTED.get(self._directory, {}))
        undos, self._undo = self._undo, []
        for undo in reversed(undos):
            undo()

    def close(self) -> None:
        """Drops what was not committed."""
        self._records = {}
