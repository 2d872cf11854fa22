"""A commit in which any operation of the store fails, and the next one, store what a commit without a fault stores."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import Repository
from otel_mlmon.processor.state.sqlite import FILE_NAME
from tests.processor.test_pipeline import CALM, Bench, settings
from tests.support.observations import SECOND, T0, label

PANES = 20
HOUR_S = 3600
LONG_LATER = -(-(T0 // SECOND + 3 * HOUR_S) // HOUR_S) * HOUR_S - T0 // SECOND
"""Seconds after T0 of a full hour at which the first panes are stored as longer ones."""

Row = tuple[str, str, bytes]


class FaultyRepository:
    """A repository of which one operation fails: the `fails_at`th from now on, before or after it is done."""

    def __init__(self, repository: Repository, *, fails_at: int, fault: Exception, is_done: bool) -> None:
        self._repository = repository
        self._fails_at = fails_at
        self._fault = fault
        self._is_done = is_done
        self.operations: list[str] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._repository, name)
        if name not in ("put", "delete", "prune", "load", "commit"):
            return operation

        def run(*arguments: Any) -> Any:
            self.operations.append(name)
            is_faulty = len(self.operations) == self._fails_at
            if is_faulty and not (self._is_done and name != "commit"):
                raise self._fault
            result = operation(*arguments)
            if is_faulty:
                raise self._fault
            return result

        return run


def rows(folder: Path) -> list[Row]:
    database = sqlite3.connect(folder / "data" / FILE_NAME)
    found = database.execute("SELECT kind, key, value FROM state WHERE kind <> 'instance' ORDER BY kind, key")
    records = found.fetchall()
    database.close()
    return records


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a model that has learned, and has panes that are old soon."""
    folder = tmp_path_factory.mktemp("learned")
    bench = Bench(settings(folder))
    for _ in range(PANES):
        bench.pane(CALM)
    bench.kill()
    return folder


def store_a_pane(learned: Path, folder: Path, **fault: Any) -> tuple[list[str], list[Row], list[str]]:
    """Commits the pane that ends an hour, beside a late point, with a fault if any, then again, and then another pane.

    Returns the operations of the first commit, what is stored at the end, and the alerts that were sent.
    """
    shutil.copytree(learned, folder)
    bench = Bench(settings(folder))
    bench.number = LONG_LATER // 10 - 2
    bench.pane(CALM)
    repository = bench.pipeline._repository
    faulty = FaultyRepository(repository, **{"fails_at": 0, "fault": StoreError("never"), "is_done": False, **fault})
    bench.pipeline._repository = faulty
    late = label(7, at_s=10.0 * (PANES - 1) + 1, since_s=10.0 * (PANES - 1), label="late")
    with suppress(type(faulty._fault)):
        bench.pane(CALM, late)
    operations = list(faulty.operations)
    bench.pipeline._repository = repository
    bench.turn()
    bench.pane(CALM)
    bench.kill()
    return operations, rows(folder), [alert.key for alert in bench.notified]


def faults() -> Iterable[tuple[Exception, bool]]:
    """The disk refuses an operation; a fault of ours comes right after it."""
    return (StoreError("the disk is full"), False), (ValueError("ours"), True)


@pytest.mark.parametrize(("fault", "is_done"), faults(), ids=["disk", "ours"])
def test_a_fault_at_any_operation_changes_nothing_of_what_is_stored_in_the_end(
    learned: Path, tmp_path: Path, fault: Exception, is_done: bool
) -> None:
    operations, expected, notified = store_a_pane(learned, tmp_path / "steady")
    assert {"load", "put", "delete", "prune", "commit"} <= set(operations)
    assert {"cycle", "pane", "panes5m", "evidence", "series"} <= {kind for kind, _, _ in expected}
    for fails_at in range(1, len(operations) + 1):
        folder = tmp_path / str(fails_at)
        done, stored, alerts = store_a_pane(learned, folder, fails_at=fails_at, fault=fault, is_done=is_done)
        assert done == operations[:fails_at]
        assert [row[:2] for row in stored] == [row[:2] for row in expected], fails_at
        assert stored == expected, fails_at
        assert alerts == notified


def test_a_processor_keeps_its_name_though_its_first_commit_fails(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    repository = bench.pipeline._repository
    names = list(repository.load("instance").values())
    bench.pipeline._repository = FaultyRepository(
        repository, fails_at=1, fault=StoreError("the disk is full"), is_done=False
    )
    with pytest.raises(StoreError):
        bench.pane(CALM)
    bench.pipeline._repository = repository
    repository.close()
    bench.open()
    assert list(bench.pipeline._repository.load("instance").values()) == names
    bench.kill()
