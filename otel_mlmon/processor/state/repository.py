"""Repositories: where the state of the processor is kept between two runs, as records by kind and key.

A package adds one by an entry point in the group `otel_mlmon.repositories`: a class or function that is called with the
directory of `storage.path` and returns a `Repository`; `storage.engine` in the configuration names it. The suite
`tests/contracts/test_repositories.py` says what each must do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from otel_mlmon.processor.state.records import RecordKind, decode, encode
from otel_mlmon.registry import Registry

T = TypeVar("T")

FORMAT_VERSION: Final = 4
"""The version of all stored records together; grows with any change to them."""


class Repository(Protocol):
    """Keeps records of bytes by kind and key; changes become durable together at the next commit.

    Runs on: the thread that opened it, and no other.
    """

    def put(self, kind: str, records: Iterable[tuple[str, bytes]], /) -> None:
        """Adds records of one kind, each a key and a value, or replaces those of the same keys.

        Raises:
            StoreError: They cannot be written.
        """

    def delete(self, kind: str, keys: Iterable[str], /) -> None:
        """Removes the records of these keys; keys without a record are ignored.

        Raises:
            StoreError: They cannot be removed.
        """

    def prune(self, kind: str, before: str, /) -> int:
        """Removes the records of a kind whose keys sort before `before`, and returns how many they were.

        Raises:
            StoreError: They cannot be removed.
        """

    def load(self, kind: str, since: str = "", /) -> dict[str, bytes]:
        """Returns the records of a kind by key, in the order of their keys, from key `since` on.

        Raises:
            StoreError: They cannot be read.
        """

    def on_rollback(self, undo: Callable[[], None], /) -> None:
        """Calls `undo` if the next commit fails, so that the caller can write its changes again."""

    def commit(self) -> None:
        """Makes all changes since the last commit durable: after it returns, a killed process loses none of them.

        Raises:
            StoreError: They cannot be made durable; all of them are rolled back.
        """

    def close(self) -> None:
        """Drops the changes since the last commit, and releases the directory; a second call does nothing."""


REPOSITORIES: Final[Registry[Callable[[Path], Repository]]] = Registry(
    "otel_mlmon.repositories", {"sqlite": "otel_mlmon.processor.state.sqlite:SqliteRepository"}
)


def open_repository(engine: str, directory: Path) -> Repository:
    """Opens the repository of that engine in a directory.

    Raises:
        ConfigurationError: There is no such engine.
        StoreError: The directory cannot be used, is in use, or holds state of another format or another program.
    """
    return REPOSITORIES.load(engine)(directory)


def put_records(repository: Repository, kind: RecordKind[T], records: Iterable[tuple[str, T]]) -> None:
    """Encodes values and puts them into the repository.

    Raises:
        StoreError: They cannot be written.
    """
    blobs = [(key, encode(value, is_compressed=kind.is_compressed)) for key, value in records]
    if blobs:
        repository.put(kind.name, sorted(blobs))


def load_records(repository: Repository, kind: RecordKind[T], since: str = "") -> dict[str, T]:
    """Loads the values of a kind by key, in the order of their keys, from key `since` on.

    Raises:
        StoreError: They cannot be read, or one is damaged.
    """
    return {key: decode(blob, kind.type) for key, blob in repository.load(kind.name, since).items()}
