"""A state is checked, repaired, exported, copied, and a model is forgotten."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.records import RECORD_KINDS
from otel_mlmon.processor.state.maintenance import (
    DAMAGED_FILE_NAME,
    RecordKinds,
    check_state,
    export_state,
    forget_model,
    list_copies,
    repair_state,
)
from otel_mlmon.processor.state.repository import FORMAT_VERSION, RecordKind, decode_record, encode_record
from otel_mlmon.processor.state.sqlite import FILE_NAME, LOCK_NAME, SqliteRepository, backup_database
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.packed_values import PackedValues
from otel_mlmon.processor.window.pane_stack import split_stacks
from otel_mlmon.processor.window.pane_store import BLOCK, PANE, PaneBlock, load_panes, merge_panes
from otel_mlmon.testing import SimulatedProcessor
from tests.tools.freeze_state import FIXTURES, freeze


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frozen") / FILE_NAME
    freeze(path)
    return path


@pytest.fixture
def directory(frozen: Path, tmp_path: Path) -> Path:
    shutil.copy(frozen, tmp_path / FILE_NAME)
    return tmp_path


def damage_record(directory: Path, kind: str) -> None:
    database = sqlite3.connect(directory / FILE_NAME)
    database.execute("UPDATE state SET value = x'00' WHERE kind = ?", (kind,))
    database.commit()
    database.close()


def test_a_sound_state_has_no_faults_and_every_record_is_exported(directory: Path) -> None:
    report = check_state(directory, RECORD_KINDS)
    lines = [json.loads(line) for line in export_state(directory, RECORD_KINDS)]
    assert report.faults == ()
    assert len(lines) == sum(report.counts.values())
    assert {line["value"]["model"][1] for line in lines if line["kind"] == "model"} == {"1", "2"}


def test_damaged_records_are_named_and_set_aside_by_a_repair(directory: Path) -> None:
    damage_record(directory, "model")
    faults = check_state(directory, RECORD_KINDS).faults
    assert len(faults) == 2
    assert all(fault.startswith("model [") and "is damaged" in fault for fault in faults)
    after = repair_state(directory, RECORD_KINDS)
    assert after.counts["damaged"] == 2
    assert all("set aside" in fault for fault in after.faults)


@pytest.mark.parametrize("field", ["layouts", "counts", "sums"])
@pytest.mark.parametrize("kind", [PANE, BLOCK], ids=["pane", "panes"])
def test_panes_that_contradict_themselves_are_named_and_set_aside_by_a_repair(
    directory: Path, kind: RecordKind[PaneBlock], field: str
) -> None:
    repository = SqliteRepository(directory)
    *_, late = split_stacks(load_panes(repository, 0))
    merge_panes(repository, [late])  # a record of its own, beside the block
    *_, (key, blob) = repository.load(kind.name).items()
    record = kind.decode(blob)
    damage: dict[str, dict[str, Any]] = {
        "layouts": {"layouts": [record.layouts[0][:-3] + b"xyz"]},
        "counts": {"counts": ("|u1", record.counts[1][:1])},
        "sums": {"sums": record.sums._replace(numbers=b"")},
    }
    repository.put(kind.name, [(key, encode_record(record._replace(**damage[field])))])
    repository.commit()
    repository.close()
    before = check_state(directory, RECORD_KINDS)
    (fault,) = before.faults
    assert fault.startswith(f"{kind.name} {key}: the record contradicts itself: ")
    lines = [json.loads(line) for line in export_state(directory, RECORD_KINDS)]
    assert len(lines) == sum(before.counts.values()) - 1
    after = repair_state(directory, RECORD_KINDS)
    assert after.faults == (f"damaged {kind.name} {key}: it was set aside",)
    remaining = Counter({**before.counts, "damaged": 1})
    remaining[kind.name] -= 1
    assert after.counts == +remaining


@pytest.mark.parametrize("kind", ["point", "series"])
def test_points_and_series_whose_parts_do_not_fit_are_named(tmp_path: Path, kind: str) -> None:
    with SimulatedProcessor() as processor:
        processor.send_counts("shop", labels={"a": 10}, features={"age": [1.0]})
        processor.advance(1)
        backup_database(Path(processor._directory.name) / "data" / FILE_NAME, tmp_path / FILE_NAME)
    repository = SqliteRepository(tmp_path)
    ((key, blob),) = repository.load(kind).items()
    record = decode_record(blob, list)
    record[-1][2 if kind == "point" else 0] = [] if kind == "point" else b"\x00"
    if kind == "point":
        record[-1][1] = []
    repository.put(kind, [(key, encode_record(record))])
    repository.commit()
    repository.close()
    assert [fault.partition(": ")[0] for fault in check_state(tmp_path, RECORD_KINDS).faults] == [f"{kind} {key}"]
    assert repair_state(tmp_path, RECORD_KINDS).faults == (f"damaged {kind} {key}: it was set aside",)


@pytest.mark.parametrize("first", [2**63, 2**64 - 1])
def test_points_whose_numbers_are_out_of_range_are_named_and_set_aside_by_a_start(tmp_path: Path, first: int) -> None:
    with SimulatedProcessor() as processor:
        processor.send_counts("shop", labels={"a": 10}, features={"age": [1.0, 5.0]})
        processor.advance(1)
        backup_database(Path(processor._directory.name) / "data" / FILE_NAME, tmp_path / FILE_NAME)
    repository = SqliteRepository(tmp_path)
    ((key, blob),) = repository.load("point").items()
    record = decode_record(blob, list)
    firsts = PackedValues._fields.index("firsts")
    assert len(record[-1][firsts]) == 1
    record[-1][firsts] = [first]
    repository.put("point", [(key, encode_record(record))])
    repository.commit()
    faults = check_state(tmp_path, RECORD_KINDS).faults
    assert [fault.partition(": ")[0] for fault in faults] == [f"point {key}"]
    WindowAggregator().load(repository)
    assert (list(repository.load("damaged")), repository.load("point")) == ([f"point {key}"], {})
    repository.close()


@pytest.mark.parametrize("version", [7, 8])
def test_a_state_of_an_earlier_format_is_checked_and_exported_as_it_will_be_and_stays_as_it_is(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / FILE_NAME
    shutil.copy(FIXTURES / f"format-{version}.sqlite3", path)
    before = path.read_bytes()
    report = check_state(tmp_path, RECORD_KINDS)
    exported = list(export_state(tmp_path, RECORD_KINDS))
    assert path.read_bytes() == before
    assert list(tmp_path.glob("mlmon-format-*")) == []
    SqliteRepository(tmp_path).close()  # migrates it
    assert exported == list(export_state(tmp_path, RECORD_KINDS))
    assert len(exported) > 20
    assert report == check_state(tmp_path, RECORD_KINDS)


def test_a_state_of_a_later_format_is_neither_checked_nor_exported_and_the_message_says_what_to_do(
    directory: Path,
) -> None:
    database = sqlite3.connect(directory / FILE_NAME)
    database.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    database.close()
    for action in (check_state, lambda *arguments: list(export_state(*arguments))):
        with pytest.raises(StoreError) as error:
            action(directory, RECORD_KINDS)
        assert str(error.value) == (
            f"{directory / FILE_NAME} has state of format {FORMAT_VERSION + 1}, and this release reads format "
            f"{FORMAT_VERSION}: run the release that wrote it, or move the directory away to start without what was "
            "learned"
        )


def test_of_a_damaged_database_what_can_be_read_is_saved(directory: Path) -> None:
    path = directory / FILE_NAME
    before = sum(check_state(directory, RECORD_KINDS).counts.values())
    damage_pages(path)
    pages = path.read_bytes()
    assert check_state(directory, RECORD_KINDS).faults
    after = repair_state(directory, RECORD_KINDS)
    assert 0 < sum(after.counts.values()) <= before
    assert all("set aside" in fault for fault in after.faults)
    assert (directory / DAMAGED_FILE_NAME).read_bytes() == pages


def damage_pages(path: Path) -> None:
    pages = bytearray(path.read_bytes())
    middle = len(pages) // 3 // 4096 * 4096
    pages[middle : middle + 4 * 4096] = b"\xff" * 4 * 4096
    path.write_bytes(pages)


def test_a_damaged_database_of_an_earlier_format_is_repaired_and_migrated(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "format-8.sqlite3", tmp_path / FILE_NAME)
    damage_pages(tmp_path / FILE_NAME)
    after = repair_state(tmp_path, RECORD_KINDS)
    assert after.counts["damaged"] < 5  # of the page itself
    assert after.counts["pane"] > 0
    assert after.counts["identities"] == after.counts["series"] > 0


@pytest.mark.parametrize("action", [check_state, lambda *arguments: list(export_state(*arguments))])
def test_a_damaged_database_of_an_earlier_format_is_named_and_what_to_do(tmp_path: Path, action: Any) -> None:
    path = tmp_path / FILE_NAME
    shutil.copy(FIXTURES / "format-8.sqlite3", path)
    damage_pages(path)
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        action(tmp_path, RECORD_KINDS)
    assert str(error.value).startswith(f"a copy of {path} cannot be migrated from format 8: ")
    assert str(error.value).endswith(
        " cannot be read: database disk image is malformed; if the disk has room, run `otel-mlmon state repair`"
    )
    assert path.read_bytes() == before


def test_a_copy_without_a_place_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(FIXTURES / "format-8.sqlite3", tmp_path / FILE_NAME)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StoreError, match=r"for which there is no place: .*; set TMPDIR$"):
        check_state(tmp_path, RECORD_KINDS)


def test_a_damaged_database_of_a_later_format_keeps_its_format(directory: Path) -> None:
    database = sqlite3.connect(directory / FILE_NAME)
    database.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    database.close()
    damage_pages(directory / FILE_NAME)
    with pytest.raises(StoreError, match=f"has state of format {FORMAT_VERSION + 1}, and this release reads"):
        repair_state(directory, RECORD_KINDS)
    repository = SqliteRepository(directory, format_version=FORMAT_VERSION + 1)
    assert repository.load("series")
    repository.close()


def test_a_state_that_a_processor_uses_is_not_repaired(directory: Path) -> None:
    owner = SqliteRepository(directory)
    with pytest.raises(StoreError, match="in use"):
        repair_state(directory, RECORD_KINDS)
    owner.close()


@pytest.mark.parametrize("read", [check_state, repair_state, lambda *state: list(export_state(*state))])
def test_a_state_that_another_program_holds_for_itself_is_not_taken_for_damaged(
    directory: Path, read: Callable[[Path, RecordKinds], object]
) -> None:
    holder = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    before = (directory / FILE_NAME).read_bytes()
    with pytest.raises(StoreError, match=f"{FILE_NAME} is locked by another program: end that first"):
        read(directory, RECORD_KINDS)
    assert (directory / FILE_NAME).read_bytes() == before
    assert not (directory / DAMAGED_FILE_NAME).exists()
    holder.close()
    assert check_state(directory, RECORD_KINDS).faults == ()


def test_a_damaged_database_that_a_processor_uses_stays_where_it_is(directory: Path) -> None:
    owner = SqliteRepository(directory)
    path = directory / FILE_NAME
    damaged = b"SQLite format 3\0" + b"\xff" * 8192
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="in use"):
        repair_state(directory, RECORD_KINDS)
    owner.close()
    assert path.exists()
    assert not (directory / "mlmon-damaged.sqlite3").exists()


def test_a_model_is_forgotten_with_all_its_versions_and_nothing_else(tmp_path: Path) -> None:
    with SimulatedProcessor() as processor:
        for _ in range(4):
            for model in ("shop", "other"):
                processor.send_counts(model, labels={"a": 10}, features={"age": [1.0]})
            processor.advance(10)
        backup_database(Path(processor._directory.name) / "data" / FILE_NAME, tmp_path / FILE_NAME)
    before = list(export_state(tmp_path, RECORD_KINDS))
    assert any('"shop"' in line for line in before)
    removed = forget_model(tmp_path, RECORD_KINDS, "shop")
    after = list(export_state(tmp_path, RECORD_KINDS))
    assert not any('"shop"' in line for line in after)
    assert [line for line in after if '"other"' in line and '"alerts"' not in line] == [
        line for line in before if '"other"' in line and '"shop"' not in line and '"alerts"' not in line
    ]
    assert sum(removed.values()) >= len(before) - len(after) > 0
    assert forget_model(tmp_path, RECORD_KINDS, "shop") == {}


def test_a_state_is_read_and_copied_while_it_is_written(tmp_path: Path) -> None:
    owner = SqliteRepository(tmp_path / "data")
    owner.put("started", [("", b"\x01")])
    owner.commit()
    owner.put("started", [("", b"\x02")])  # not committed
    backup_database(tmp_path / "data" / FILE_NAME, tmp_path / "copy")
    assert check_state(tmp_path / "data", RECORD_KINDS).counts == {"started": 1}
    owner.close()
    copy = sqlite3.connect(tmp_path / "copy")
    assert copy.execute("SELECT value FROM state").fetchall() == [(b"\x01",)]
    copy.close()
    with pytest.raises(StoreError, match="exists already"):
        backup_database(tmp_path / "data" / FILE_NAME, tmp_path / "copy")


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    repository = SqliteRepository(tmp_path / "data")
    repository.put("a", [("1", b"")])
    repository.commit()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert {FILE_NAME, LOCK_NAME, f"{FILE_NAME}-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}
    repository.close()


def test_without_a_state_it_is_a_sentence(tmp_path: Path) -> None:
    for action in (check_state, repair_state):
        with pytest.raises(StoreError, match="there is no state in"):
            action(tmp_path, RECORD_KINDS)


def test_what_cannot_be_read_is_forgotten_too_unless_it_is_of_another_model(tmp_path: Path) -> None:
    with SimulatedProcessor() as processor:
        for _ in range(4):
            for model in ("shop", "other"):
                processor.send_counts(model, labels={"a": 10})
            processor.advance(10)
        processor.send_counts("shop", labels={"a": 10})
        backup_database(Path(processor._directory.name) / "data" / FILE_NAME, tmp_path / FILE_NAME)
    kinds = ("series", "point", "pane", "stream", "alerts", "ended")
    for kind in kinds:
        damage_record(tmp_path, kind)
    repair_state(tmp_path, RECORD_KINDS)
    before = damaged_keys(tmp_path)
    assert {key.partition(" ")[0] for key in before} >= {"series", "pane", "stream"}
    removed = forget_model(tmp_path, RECORD_KINDS, "shop")
    after = damaged_keys(tmp_path)
    assert after == [key for key in before if '"other"' in key]
    assert removed["damaged"] == len(before) - len(after)


def damaged_keys(directory: Path) -> list[str]:
    database = sqlite3.connect(directory / FILE_NAME)
    keys = [key for (key,) in database.execute("SELECT key FROM state WHERE kind = 'damaged' ORDER BY key")]
    database.close()
    return keys


def test_what_was_forgotten_is_not_left_in_the_file_and_copies_are_named(tmp_path: Path) -> None:
    repository = SqliteRepository(tmp_path)
    repository.put("damaged", [(f"series {number}", b"secret-customer" * 100) for number in range(50)])
    repository.commit()
    repository.close()
    copies = ["mlmon-damaged.sqlite3", "mlmon-format-5.sqlite3", "dead-letters/requests/metrics-1.pb"]
    for name in copies:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert forget_model(tmp_path, RECORD_KINDS, "shop") == {"damaged": 50}
    left = [path.name for path in tmp_path.glob(f"{FILE_NAME}*") if b"secret-customer" in path.read_bytes()]
    assert left == []
    assert list_copies(tmp_path) == sorted(tmp_path / name for name in copies)
