"""Stores OTLP requests that failed, for a person to look at, in a directory of bounded size."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

MAX_FILES: Final = 100
MAX_BYTES: Final = 256 * 2**20


class DeadLetterDirectory:
    """A directory of failed OTLP requests of bounded size, in which the oldest make room for new ones.

    Runs on: any thread; writes one file at a time.

    Args:
        directory: Made at the first write.
        max_files: The most files, above 0.
        max_bytes: The limit on all files together; a larger body is not written.
    """

    def __init__(self, directory: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self._directory = directory
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def write(self, body: bytes, *, name: str, suffix: str = ".pb") -> Path | None:
        """Writes the body of a failed request to `<name><suffix>`; returns None if it is too large.

        Raises:
            OSError: The directory cannot be written to.
        """
        if len(body) > self._max_bytes:
            return None
        with self._lock:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / f"{name}{suffix}"
            draft = path.with_suffix(".part")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            draft.replace(path)
            self._remove_oldest()
        return path

    def _remove_oldest(self) -> None:
        newest_first = sorted(
            (
                (path.stat().st_mtime_ns, path.stat().st_size, path)
                for path in (*self._directory.glob("*.pb"), *self._directory.glob("*.json"))
            ),
            reverse=True,
        )
        total_bytes = 0
        for rank, (_, size_bytes, path) in enumerate(newest_first, start=1):
            total_bytes += size_bytes
            if rank > self._max_files or total_bytes > self._max_bytes:
                path.unlink()
