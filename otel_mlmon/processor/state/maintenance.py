"""Maintains a processor's state store from outside: checks, repairs and exports it, and deletes a model's data.

Checking, exporting and copying read only, also while a processor runs on the directory. Repairing and forgetting need
it alone.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.repository import (
    DAMAGED,
    FORMAT_VERSION,
    RecordKind,
    encode_record,
    load_records,
    quarantine_record,
)
from otel_mlmon.processor.state.sqlite import (
    APPLICATION_ID,
    FILE_NAME,
    LOCK_NAME,
    SqliteRepository,
    backup_database,
    is_lock_error,
    open_private_database,
    require_known_format,
)

RecordKinds = Mapping[str, RecordKind[Any]]
"""Every kind of record, by its name."""

DAMAGED_FILE_NAME: Final = "mlmon-damaged.sqlite3"


class CheckResult(NamedTuple):
    """The result of checking a state store: its number of records by kind, and its faults."""

    counts: Mapping[str, int]
    """Records by kind, those that were set aside among them as `damaged`."""
    faults: tuple[str, ...]
    """One sentence for each fault; empty if everything can be used."""


def check_state(directory: Path, kinds: RecordKinds) -> CheckResult:
    """Checks that every record of a state store can be read, of an earlier format after its migration; changes nothing.

    Raises:
        StoreError: There is no state in the directory, it is another program's, or of a format that cannot be migrated.
    """
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with _open_migrated(directory) as database:
        try:
            faults += [text for (text,) in database.execute("PRAGMA quick_check") if text != "ok"]
            for kind, key, blob in database.execute("SELECT kind, key, value FROM state ORDER BY kind, key"):
                counts[kind] += 1
                faults += [f"{kind} {key}: {fault}" for fault in _find_record_fault(kinds, kind, blob)]
        except sqlite3.DatabaseError as error:
            _check_unlocked(directory, error)
            faults.append(f"The database is damaged: {error}.")
    return CheckResult(dict(counts), tuple(faults))


def export_state(directory: Path, kinds: RecordKinds) -> Iterator[str]:
    """Yields every readable record of a state store as a line of JSON: `{"kind": …, "key": …, "value": …}`.

    Of an earlier format it yields what a migration makes of it; the store itself stays as it is.

    Raises:
        StoreError: There is no state in the directory, it is another program's, or of a format that cannot be migrated.
    """
    encoder = msgspec.json.Encoder(enc_hook=_convert_to_json)
    with _open_migrated(directory) as database:
        for kind, key, blob in database.execute("SELECT kind, key, value FROM state ORDER BY kind, key"):
            if not list(_find_record_fault(kinds, kind, blob)):
                value = kinds[kind].decode(blob)
                yield encoder.encode({"kind": kind, "key": key, "value": value}).decode()


def repair_state(directory: Path, kinds: RecordKinds) -> CheckResult:
    """Repairs a state store: saves what can be read of a damaged database, and sets unusable records aside.

    The damaged database stays beside the new one, as `mlmon-damaged.sqlite3`.

    Raises:
        StoreError: A processor runs on the directory, or nothing can be read.
    """
    path = directory / FILE_NAME
    if not path.exists():
        raise StoreError(f"there is no state in {directory}")
    try:
        with _open_readonly(directory) as database:
            is_damaged = [text for (text,) in database.execute("PRAGMA quick_check")] != ["ok"]
    except sqlite3.DatabaseError as error:
        _check_unlocked(directory, error)
        is_damaged = True
    if is_damaged:
        _rebuild_database(directory)
    repository = SqliteRepository(directory)
    try:
        for kind in kinds.values():
            for key, blob in repository.load(kind.name).items():
                for fault in _find_record_fault(kinds, kind.name, blob):
                    quarantine_record(repository, kind.name, key, blob, fault)
        repository.commit()
    finally:
        repository.close()
    return check_state(directory, kinds)


def forget_model(directory: Path, kinds: RecordKinds, name: str) -> Counter[str]:
    """Deletes everything that a state store holds of all versions of a model; returns the records by kind.

    Records that were set aside go too, unless their keys name other models: what they hold cannot be read any more.
    What was removed is not left behind in the file either.

    Raises:
        StoreError: A processor runs on the directory, or the state cannot be used.
    """
    removed: Counter[str] = Counter()
    repository = SqliteRepository(directory)
    try:
        for kind in kinds.values():
            records = load_records(repository, kind)
            keys = [key for key, value in records.items() if name in _list_record_models(value)]
            if keys:
                repository.delete(kind.name, keys)
                removed[kind.name] += len(keys)
            for key, value in records.items():
                if _drop_model_entries(value, name):
                    repository.put(kind.name, [(key, encode_record(value, is_compressed=kind.is_compressed))])
                    removed[kind.name] += 1
        damaged = [key for key in repository.load(DAMAGED) if not _names_other_model(key, name)]
        if damaged:
            repository.delete(DAMAGED, damaged)
            removed[DAMAGED] += len(damaged)
        repository.commit()
        if removed:
            repository.erase_deleted()
    finally:
        repository.close()
    return removed


def list_copies(directory: Path) -> list[Path]:
    """Returns the files beside a state store that may still hold data of a deleted model: copies, dead letters."""
    patterns = (DAMAGED_FILE_NAME, "mlmon-format-*.sqlite3", "dead-letters/**/*")
    return sorted(path for pattern in patterns for path in directory.glob(pattern) if path.is_file())


def _names_other_model(key: str, name: str) -> bool:
    """Returns whether the key of an unreadable record names models, but not a given one.

    A key is a kind, for panes, hours and points a number, and a JSON document that has the model in it; or it has no
    such document.
    """
    document = key[key.index("[") :] if "[" in key else ""
    if not document:
        return False
    try:
        return name not in _collect_texts(json.loads(document))
    except ValueError:
        return False


def _collect_texts(document: Any) -> set[str]:
    if isinstance(document, list):
        return {text for part in document for text in _collect_texts(part)}
    return {document} if isinstance(document, str) else set()


def _find_record_fault(kinds: RecordKinds, kind: str, blob: bytes) -> Iterator[str]:
    if kind == DAMAGED:
        yield "it was set aside"
    elif kind not in kinds:
        yield "it is of an unknown kind"
    else:
        try:
            kinds[kind].decode(blob)
        except StoreError as error:
            yield str(error)


def _list_record_models(value: Any) -> set[str]:
    """Returns the names of the models that a stored record is about."""
    for owner in (value, getattr(value, "stream", None), getattr(value, "alert", None)):
        model = getattr(owner, "model", None)
        if model is not None:
            return {model if isinstance(model, str) else model.name}
    return set()


def _drop_model_entries(value: Any, name: str) -> bool:
    """Drops a model from a stored record that is about several models; returns whether the record was about it."""
    is_changed = False
    for field in ("models", "resolved", "dropped"):
        entries = getattr(value, field, None)
        if isinstance(entries, list):
            others = [entry for entry in entries if name not in _list_record_models(entry)]
            is_changed |= len(others) < len(entries)
            entries[:] = others
    return is_changed


@contextmanager
def _open_readonly(directory: Path) -> Iterator[sqlite3.Connection]:
    path = directory / FILE_NAME
    if not path.exists():
        raise StoreError(f"there is no state in {directory}")
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        try:
            application_id = database.execute("PRAGMA application_id").fetchone()[0]
        except sqlite3.DatabaseError as error:
            _check_unlocked(directory, error)
            raise StoreError(f"{path} cannot be read: {error}; run `otel-mlmon state repair`") from error
        if application_id != APPLICATION_ID:
            raise StoreError(f"{path} is a database of another program")
        yield database
    finally:
        database.close()


def _check_unlocked(directory: Path, error: sqlite3.DatabaseError) -> None:
    """Checks that a database could not be read for another reason than that some program holds it for itself.

    Raises:
        StoreError: One does; the database may be whole.
    """
    if is_lock_error(error):
        raise StoreError(f"{directory / FILE_NAME} is locked by another program: end that first") from error


@contextmanager
def _open_migrated(directory: Path) -> Iterator[sqlite3.Connection]:
    """Opens a state store to be read: itself, or if it is of an earlier format a copy, which is migrated."""
    with _open_readonly(directory) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        require_known_format(directory / FILE_NAME, version)
        if version == FORMAT_VERSION:
            yield database
            return
    with _create_folder() as copy:
        backup_database(directory / FILE_NAME, copy / FILE_NAME)
        try:
            SqliteRepository(copy).close()
        except StoreError as error:
            raise StoreError(
                f"a copy of {directory / FILE_NAME} cannot be migrated from format {version}: {error}; if the disk has "
                "room, run `otel-mlmon state repair`"
            ) from error
        with _open_readonly(copy) as database:
            yield database


@contextmanager
def _create_folder() -> Iterator[Path]:
    """Makes a folder for a copy of a state store, which is removed afterwards."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="copy-of-state-")
    except OSError as error:
        raise StoreError(
            f"a state of an earlier format is read from a copy, for which there is no place: {error}; set TMPDIR"
        ) from error
    with folder as path:
        yield Path(path)


def _rebuild_database(directory: Path) -> None:
    """Replaces a damaged database by a new one with all rows that can be read from either end of its table.

    It has the format of the damaged one, so that whoever opens it migrates the rows.
    """
    path, aside = directory / FILE_NAME, directory / DAMAGED_FILE_NAME
    lock = open_private_database(directory / LOCK_NAME)
    try:
        lock.execute("BEGIN EXCLUSIVE")  # before anything is moved; held by a processor that runs
    except sqlite3.OperationalError as error:
        raise StoreError(f"the state in {directory} is in use: stop the processor first") from error
    finally:
        lock.close()
    if aside.exists():
        raise StoreError(f"{aside} exists already, from an earlier repair: move it away")
    rows = {(kind, key): value for order in ("ASC", "DESC") for kind, key, value in _read_intact_rows(path, order)}
    if not rows:
        raise StoreError(f"nothing in {path} can be read: move it away to start without what was learned")
    version = _read_format_version(path)
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    repository = SqliteRepository(directory, format_version=version)
    by_kind: dict[str, list[tuple[str, bytes]]] = {}
    for (kind, key), value in sorted(rows.items()):
        by_kind.setdefault(kind, []).append((key, value))
    for kind, records in by_kind.items():
        repository.put(kind, records)
    repository.commit()
    repository.close()


def _read_format_version(path: Path) -> int:
    """Returns the format version of a damaged database; the present one where that cannot be read either."""
    database = open_private_database(path)
    try:
        return int(database.execute("PRAGMA user_version").fetchone()[0]) or FORMAT_VERSION
    except sqlite3.DatabaseError:
        return FORMAT_VERSION
    finally:
        database.close()


_ROWS: Final[Mapping[str, str]] = {
    order: f"SELECT kind, key, value FROM state ORDER BY kind {order}, key {order}"  # noqa: S608 - two constants
    for order in ("ASC", "DESC")
}


def _read_intact_rows(path: Path, order: str) -> Iterator[tuple[str, str, bytes]]:
    """Yields the rows of a damaged database until the first that cannot be read."""
    database = open_private_database(path)
    try:
        rows: Callable[[], Any] = database.execute(_ROWS[order]).fetchone
        while (row := rows()) is not None:
            yield row
    except sqlite3.DatabaseError:
        return
    finally:
        database.close()


def _convert_to_json(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
