"""What every repository must do, shown on the built-in one and on one that a package adds by an entry point."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import ConfigurationError, StoreError
from otel_mlmon.processor.state.repository import (
    REPOSITORIES,
    RecordKind,
    Repository,
    commit_or_rollback,
    load_records,
    open_repository,
    put_records,
)
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.registry import PluginRegistry
from otel_mlmon.types import ModelKey
from tests.support.file_repository import FileRepository

ENTRY_POINTS = """[otel_mlmon.repositories]
file = tests.support.file_repository:FileRepository
sqlite = tests.support.file_repository:FileRepository
"""
MODELS = RecordKind("model", ModelKey)
COMPRESSED_MODELS = RecordKind("model", ModelKey, is_compressed=True)

ENGINES: dict[str, Callable[..., Repository]] = {"sqlite": SqliteRepository, "file": FileRepository}


@contextmanager
def failing_sqlite_commits(repository: Any) -> Iterator[None]:
    """Every COMMIT is refused, as on a full disk; what was written before it is not."""
    deny_transaction = 22
    repository._database.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_DENY if action == deny_transaction else sqlite3.SQLITE_OK
    )
    yield
    repository._database.set_authorizer(None)
    repository._database.execute("ROLLBACK") if repository._database.in_transaction else None


@contextmanager
def failing_file_commits(repository: Any) -> Iterator[None]:
    """The file that a commit writes is in the way as a directory."""
    obstacle = repository._path.with_suffix(".new")
    obstacle.mkdir()
    yield
    obstacle.rmdir()


FAILING: dict[str, Callable[[Any], AbstractContextManager[None]]] = {
    "sqlite": failing_sqlite_commits,
    "file": failing_file_commits,
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opening(engine: str, tmp_path: Path) -> Iterator[Callable[..., Repository]]:
    """Opens the one directory of a test again and again."""
    opened: list[Repository] = []

    def reopen(**options: Any) -> Repository:
        for repository in opened:
            repository.close()
        opened.append(ENGINES[engine](tmp_path / "state", **options))
        return opened[-1]

    yield reopen
    for repository in opened:
        repository.close()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginRegistry[Callable[[Path], Repository]]:
    """The registry beside an installed package that offers two repositories."""
    folder = tmp_path / "added_repository-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: added-repository\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return PluginRegistry(REPOSITORIES.group, {"sqlite": "otel_mlmon.processor.state.sqlite:SqliteRepository"})


def test_a_package_adds_a_repository_by_an_entry_point(
    registry: PluginRegistry[Callable[[Path], Repository]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otel_mlmon.processor.state.repository.REPOSITORIES", registry)
    added, built_in = (open_repository(name, tmp_path / name) for name in ("file", "sqlite"))
    # Another copy of the module: pytest and the entry point import it by different ways.
    assert (type(added).__name__, type(built_in)) == ("FileRepository", SqliteRepository)
    added.close()
    built_in.close()
    with pytest.raises(ConfigurationError, match="'postgres' is not one of sqlite, file"):
        open_repository("postgres", tmp_path)


def test_committed_records_are_there_again_and_others_are_not(opening: Callable[..., Repository]) -> None:
    repository = opening()
    repository.put("a", [("2", b"two"), ("1", b"one")])
    repository.put("b", [("1", b"other")])
    repository.put("a", [("1", b"uno")])
    repository.delete("b", ["1", "no such key"])
    repository.commit()
    repository.put("a", [("3", b"lost")])
    repository.delete("a", ["1"])
    again = opening()
    assert list(again.load("a").items()) == [("1", b"uno"), ("2", b"two")]
    assert again.load("a", "2") == {"2": b"two"}
    assert again.load("a", "", "2") == again.load("a", "1", "2") == {"1": b"uno"}
    assert again.load("a", "2", "2") == {}
    assert again.load("b") == {}


def test_changes_are_seen_before_their_commit(opening: Callable[..., Repository]) -> None:
    repository = opening()
    repository.put("a", [("1", b"one")])
    assert repository.load("a") == {"1": b"one"}


def test_prune_removes_records_of_one_kind_whose_keys_sort_before(opening: Callable[..., Repository]) -> None:
    repository = opening()
    repository.put("pane", [(key, b"") for key in ("1", "2", "3")])
    repository.put("hour", [("1", b"")])
    assert repository.prune("pane", "3") == 2
    assert repository.prune("pane", "3") == 0
    assert (list(repository.load("pane")), list(repository.load("hour"))) == (["3"], ["1"])


def test_a_commit_without_changes_is_none_of_an_error(opening: Callable[..., Repository]) -> None:
    repository = opening()
    repository.commit()
    repository.commit()
    assert repository.load("a") == {}


def test_a_commit_that_fails_rolls_back_and_is_retried(opening: Callable[..., Repository], engine: str) -> None:
    repository = opening()
    undone: list[str] = []
    repository.on_rollback(lambda: undone.append("of a commit that worked"))
    repository.put("a", [("1", b"one")])
    repository.commit()
    repository.put("a", [("1", b"uno"), ("2", b"two")])
    repository.on_rollback(lambda: undone.append("first"))
    repository.on_rollback(lambda: undone.append("second"))
    with FAILING[engine](repository), pytest.raises(StoreError, match="cannot be written"):
        repository.commit()
    assert undone == ["second", "first"]
    assert repository.load("a") == {"1": b"one"}
    repository.put("a", [("1", b"uno"), ("2", b"two")])
    repository.commit()
    repository.rollback()
    assert undone == ["second", "first"]
    assert opening().load("a") == {"1": b"uno", "2": b"two"}


def test_a_rollback_drops_what_is_not_committed_and_says_so_once(opening: Callable[..., Repository]) -> None:
    repository = opening()
    undone: list[str] = []
    repository.put("a", [("1", b"one")])
    repository.commit()
    repository.on_rollback(lambda: undone.append("first"))
    repository.put("a", [("1", b"uno")])
    repository.on_rollback(lambda: undone.append("second"))
    repository.delete("a", ["1"])
    repository.rollback()
    repository.rollback()
    assert undone == ["second", "first"]
    assert repository.load("a") == {"1": b"one"}
    repository.put("a", [("2", b"two")])
    repository.commit()
    assert opening().load("a") == {"1": b"one", "2": b"two"}


def test_a_transaction_is_whole_or_nothing_whatever_breaks_it(opening: Callable[..., Repository]) -> None:
    repository = opening()
    undone: list[str] = []

    def break_off(fault: BaseException) -> None:
        with commit_or_rollback(repository):
            repository.on_rollback(lambda: undone.append("undone"))
            repository.put("a", [("1", b"one")])
            raise fault

    for fault in (ValueError("ours"), KeyboardInterrupt()):
        with pytest.raises(type(fault)):
            break_off(fault)
    with commit_or_rollback(repository):
        repository.put("a", [("2", b"two")])
    assert undone == ["undone", "undone"]
    assert opening().load("a") == {"2": b"two"}


def test_a_directory_has_one_owner_at_a_time(engine: str, tmp_path: Path) -> None:
    repository = ENGINES[engine](tmp_path)
    with pytest.raises(StoreError, match="in use by another processor"):
        ENGINES[engine](tmp_path)
    repository.close()
    repository.close()
    ENGINES[engine](tmp_path).close()


def test_state_of_another_format_is_refused_and_left_alone(opening: Callable[..., Repository], tmp_path: Path) -> None:
    repository = opening(format_version=2)
    repository.put("a", [("1", b"one")])
    repository.commit()
    with pytest.raises(StoreError, match=rf"{tmp_path}.* has state of format 2, and this release reads .*3"):
        opening(format_version=3)
    assert opening(format_version=2).load("a") == {"1": b"one"}


def test_a_path_that_is_a_file_is_refused(engine: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        ENGINES[engine](tmp_path / "file")


WRITER = """
import sys
from pathlib import Path
from tests.contracts.test_repositories import ENGINES
repository = ENGINES[sys.argv[1]](Path(sys.argv[2]))
for number in range(100):
    repository.put("n", [(str(number), b"x" * 1000)])
    repository.commit()
repository.put("n", [("uncommitted", b"")])
print("committed", flush=True)
sys.stdin.read()
"""


def test_committed_records_survive_kill_9(engine: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, engine, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"committed\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    repository = ENGINES[engine](tmp_path)
    assert repository.load("n") == {str(number): b"x" * 1000 for number in range(100)}
    repository.close()


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("ab"), KEYS, st.binary(max_size=3)),
        st.tuples(st.sampled_from(["delete", "prune"]), st.sampled_from("ab"), KEYS, st.just(b"")),
        st.tuples(st.sampled_from(["commit", "reopen"]), st.just(""), st.just(""), st.just(b"")),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=25)
@given(changes=CHANGES)
@pytest.mark.parametrize("name", ENGINES)
def test_a_repository_is_a_dictionary_with_commits(name: str, changes: list[tuple[str, str, str, bytes]]) -> None:
    options: dict[str, Any] = {"synchronous": "OFF"} if name == "sqlite" else {}
    with tempfile.TemporaryDirectory() as directory:
        repository = ENGINES[name](Path(directory), **options)
        model: dict[tuple[str, str], bytes] = {}
        committed = dict(model)
        for action, kind, key, value in changes:
            if action == "put":
                repository.put(kind, [(key, value)])
                model[kind, key] = value
            elif action == "delete":
                repository.delete(kind, [key])
                model.pop((kind, key), None)
            elif action == "prune":
                old = [row for row in model if row[0] == kind and row[1] < key]
                assert repository.prune(kind, key) == len(old)
                model = {row: blob for row, blob in model.items() if row not in old}
            elif action == "commit":
                repository.commit()
                committed = dict(model)
            else:
                repository.close()
                repository, model = ENGINES[name](Path(directory), **options), dict(committed)
            rows = [(kind, key, blob) for kind in "ab" for key, blob in repository.load(kind).items()]
            assert rows == [(*row, blob) for row, blob in sorted(model.items())]
        repository.close()


@pytest.mark.parametrize("kind", [MODELS, COMPRESSED_MODELS])
def test_values_are_put_and_loaded_by_their_kind(
    opening: Callable[..., Repository], kind: RecordKind[ModelKey]
) -> None:
    repository = opening()
    values = {"b": ModelKey("m", "2", "production"), "a": ModelKey("m")}
    put_records(repository, kind, values.items())
    repository.commit()
    again = opening()
    assert list(load_records(again, kind).items()) == sorted(values.items())
    assert load_records(again, kind, "b") == {"b": values["b"]}


def test_a_damaged_value_is_set_aside_and_reported(
    opening: Callable[..., Repository], caplog: pytest.LogCaptureFixture
) -> None:
    repository = opening()
    put_records(repository, MODELS, [("b", ModelKey("m"))])
    repository.put("model", [("a", b"\x93")])
    assert load_records(repository, MODELS) == {"b": ModelKey("m")}
    repository.commit()
    again = opening()
    assert (list(again.load("model")), again.load("damaged")) == (["b"], {"model a": b"\x93"})
    (message,) = caplog.messages
    assert message.startswith("A record of the stored state cannot be used and is set aside: model a: ")
