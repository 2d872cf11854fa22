from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.sqlite import APPLICATION_ID, FILE_NAME, SCHEMA_VERSION, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state")
    yield opened
    opened.close()


def test_what_is_committed_is_there_again(tmp_path: Path, store: Store) -> None:
    store.put("a", "2", b"two")
    store.put("a", "1", b"one")
    store.put("b", "1", b"other")
    store.put("a", "1", b"uno")
    store.delete("b", "1")
    store.commit()
    store.put("a", "3", b"lost")
    store.close()
    again = Store(tmp_path / "state")
    assert again.load("a") == {"1": b"uno", "2": b"two"}
    assert list(again.load("a")) == ["1", "2"]
    assert again.load("a", since="2") == {"2": b"two"}
    assert again.load("b") == {}
    again.close()


def test_prune_removes_what_sorts_before(store: Store) -> None:
    for key in ("1", "2", "3"):
        store.put("pane", key, b"")
    assert store.prune("pane", "3") == 2
    assert list(store.load("pane")) == ["3"]


def test_a_directory_has_one_owner(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StoreError, match="in use by another processor"):
        Store(tmp_path / "state")
    store.close()
    Store(tmp_path / "state").close()


def test_an_unknown_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(StoreError, match=f"version {SCHEMA_VERSION + 1}; this release knows {SCHEMA_VERSION}"):
        Store(tmp_path)
    check = sqlite3.connect(tmp_path / FILE_NAME)
    assert check.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    assert check.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    check.close()


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(StoreError, match="another program"):
        Store(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "file")


def test_a_commit_that_fails_is_undone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    undone: list[str] = []
    store.on_rollback(lambda: undone.append("first"))
    store.commit()
    store.put("a", "1", b"")
    store.on_rollback(lambda: undone.append("second"))
    # A statement that was never finished makes the commit fail, as a full disk would.
    store._database.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == 22 else sqlite3.SQLITE_OK)
    with pytest.raises(StoreError, match="cannot be written"):
        store.commit()
    assert undone == ["second"]
    store.close()


WRITER = """
import sys
from otel_mlmon.processor.state.sqlite import Store
store = Store(sys.argv[1], synchronous=sys.argv[2])
for number in range(100):
    store.put("n", str(number), b"x" * 1000)
    store.commit()
store.put("n", "uncommitted", b"")
print("committed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_what_is_committed_survives_kill_9(tmp_path: Path, synchronous: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), synchronous], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"committed\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    store = Store(tmp_path)
    assert store.load("n") == {str(number): b"x" * 1000 for number in range(100)}
    store.close()
