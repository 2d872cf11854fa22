"""Every format since the first that was released is read by this release; a migration is all or nothing."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.evidence_log import CycleRecord
from otel_mlmon.processor.evidence_slices import EVIDENCE
from otel_mlmon.processor.records import RECORD_KINDS
from otel_mlmon.processor.state.maintenance import check_state
from otel_mlmon.processor.state.migrations import MIGRATIONS
from otel_mlmon.processor.state.repository import FORMAT_VERSION, Repository, decode_record, encode_record, load_records
from otel_mlmon.processor.state.sqlite import FILE_NAME, SqliteRepository
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.packed_numbers import pack_ints, unpack_ints
from otel_mlmon.processor.window.packed_values import NO_GAPS
from otel_mlmon.processor.window.packing import PointsRecord, pack_points
from otel_mlmon.processor.window.pane_stack import split_stacks
from otel_mlmon.processor.window.pane_store import load_panes
from otel_mlmon.processor.window.series import PendingPoints
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.types import ModelKey
from tests.processor.window.test_packing import draw_points, list_points
from tests.support.file_repository import FileRepository
from tests.tools.freeze_state import FIXTURES, PANES, freeze

CONFIGURATION = {"models": {"*": {"reference": {"learn": 2000}}}}
FROZEN = sorted(FIXTURES.glob("format-*.sqlite3"))


def test_the_present_format_is_frozen_and_all_between_can_be_migrated() -> None:
    formats = sorted(int(path.stem.removeprefix("format-")) for path in FROZEN)
    assert formats == list(range(formats[0], FORMAT_VERSION + 1))
    assert sorted(MIGRATIONS) == formats[:-1]


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_a_frozen_store_is_read_whole(frozen: Path, tmp_path: Path) -> None:
    shutil.copy(frozen, tmp_path / FILE_NAME)
    repository = SqliteRepository(tmp_path)
    windows = WindowAggregator()
    windows.load(repository)
    (old, new) = windows.models
    summary = windows.summary(new)
    assert (old.version, new.version, summary.late_predictions) == ("1", "2", 500)
    assert summary.predictions == 500 * (PANES + 2)
    assert windows.summary(old).predictions == 500 * 3
    repository.close()
    report = check_state(tmp_path, RECORD_KINDS)
    assert report.faults == ()
    panes = {"pane", "panes"} & report.counts.keys()
    assert panes
    assert {"model", "stream", "series", "evidence", "alerts"} <= report.counts.keys()


def test_the_script_writes_what_can_be_read(tmp_path: Path) -> None:
    freeze(tmp_path / FILE_NAME)
    assert check_state(tmp_path, RECORD_KINDS).faults == ()


def test_days_of_format_7_get_dates_of_their_kind(tmp_path: Path) -> None:
    counts = np.arange(192, dtype="<i8").reshape(96, 2)
    plain = (counts.dtype.str, counts.shape, counts.tobytes())
    stream = StreamKey(ModelKey("m", "1"), "input.x")
    state = {
        "bins": ["a", "b"], "first_ns": 1, "day": 20_003, "today": plain, "whole_days": 3, "effect": 2.0,
        "days": [{"kind": kind, "counts": plain} for kind in (0, 1, 1, 0)],
        "inherited": [{"kind": 1, "counts": plain}],
    }  # fmt: skip
    repository = SqliteRepository(tmp_path, format_version=7)
    repository.put("cycle", [("key", encode_record({"stream": stream, "state": state}, is_compressed=True))])
    repository.commit()
    repository.close()
    repository = SqliteRepository(tmp_path)
    record = decode_record(repository.load("cycle")["key"], CycleRecord)
    repository.close()
    # Day 20,003 is a Monday: the days before are the Friday, and the Sunday, Saturday and Friday of the week before.
    assert [day.day for day in record.state.days] == [19_993, 19_994, 19_995, 20_000]
    assert [day.day for day in record.state.inherited] == [20_002]
    assert all(np.array_equal(day.counts, counts) and day.counts.dtype == np.int32 for day in record.state.days)
    assert (record.state.day, record.state.effect, record.state.time_zone) == (20_003, 2.0, "")


def start_on(version: int) -> dict[StreamKey, tuple[bytes, bytes]]:
    """The evidence and the score of each stream after a start on a frozen store, with the panes that are replayed."""
    with SimulatedProcessor(CONFIGURATION) as processor:
        processor._pipeline._repository.close()
        for path in (directory := Path(processor._directory.name) / "data").iterdir():
            path.unlink()
        shutil.copy(FIXTURES / f"format-{version}.sqlite3", directory / FILE_NAME)
        processor._open_pipeline()
        evidence = processor._pipeline._evidence
        return {
            stream: (encode_record(evidence.evaluator.pack([stream])), encode_record(evidence.find_score(stream)))
            for stream in evidence.evaluator.streams()
        }


def test_evidence_of_earlier_formats_is_that_which_the_present_one_stores() -> None:
    found = [start_on(version) for version in (8, 9, 10, FORMAT_VERSION)]
    assert found[0] == found[1] == found[2] == found[3]
    assert sorted(stream.stream for stream in found[0]) == ["errors", "latency", "prediction.label"]


@pytest.mark.parametrize("name", ["history", "components", "design_effect", "rare_bins", "tolerance"])
def test_evidence_that_contradicts_itself_is_set_aside_and_that_of_all_other_streams_is_joined(
    name: str, tmp_path: Path
) -> None:
    shutil.copy(FIXTURES / "format-10.sqlite3", tmp_path / FILE_NAME)
    repository = SqliteRepository(tmp_path, format_version=10)
    blobs = repository.load("evidence")
    key = '[["shop", "2", ""], "prediction.label"]'
    record = decode_record(blobs[key], dict)
    record["state"]["evidence"][name] = record["state"]["evidence"]["reference"]
    repository.put("evidence", [(key, spoilt := encode_record(record))])
    repository.commit()
    repository.close()
    repository = SqliteRepository(tmp_path)
    assert repository.load("damaged") == {f"evidence {key}": spoilt}
    records = load_records(repository, EVIDENCE).values()
    repository.close()
    joined = {json.dumps(stream) for record in records for stream in record.list_streams()}
    assert joined == blobs.keys() - {key}


def test_panes_of_earlier_formats_are_those_that_the_present_one_stores(tmp_path: Path) -> None:
    panes = {}
    for version in (8, 9, FORMAT_VERSION):
        (tmp_path / str(version)).mkdir()
        shutil.copy(FIXTURES / f"format-{version}.sqlite3", tmp_path / str(version) / FILE_NAME)
        repository = SqliteRepository(tmp_path / str(version))
        panes[version] = [
            (pane.model, pane.end_ns, pane.duration, pane.streams.split(pane.start_ns, pane.end_ns))
            for pane in split_stacks(load_panes(repository, 0))
        ]
        repository.close()
    assert repr(panes[8]) == repr(panes[9]) == repr(panes[FORMAT_VERSION])
    assert len(panes[8]) > PANES


def list_as_format_10(record: PointsRecord) -> list[Any]:
    """A record of points as format 10 has it: the times of each point, and all that may be left out now."""
    points, values = list_points(record), record.values
    kinds = values.kinds.replace(b"\0", b"")
    length = sum(size for kind, size in zip(kinds, values.sizes, strict=True) if kind == 2)
    steps = np.ones(max(length - 1, 0), dtype=np.int64) if values.steps == NO_GAPS else unpack_ints(values.steps)
    unknown = [math.inf] * len(values.sizes)
    return [
        record.model, record.request, *([point[place] for point in points] for place in range(5)), record.exemplars,
        values._replace(
            firsts=np.cumsum(values.firsts).tolist(), steps=pack_ints(steps),
            minima=values.minima or unknown, maxima=values.maxima or [-number for number in unknown],
        ),
    ]  # fmt: skip


@settings(deadline=None)
@given(groups=st.lists(draw_points(), max_size=3))
def test_points_of_format_10_are_gathered_in_runs(groups: list[PendingPoints]) -> None:
    record = pack_points(7, ModelKey("m", "1"), groups)
    with tempfile.TemporaryDirectory() as directory:
        repository = FileRepository(Path(directory))
        repository.put("point", [("key", encode_record(list_as_format_10(record)))])
        MIGRATIONS[10](repository)
        migrated = decode_record(repository.load("point")["key"], PointsRecord)
        repository.close()
    assert list_points(migrated) == list_points(record)
    assert migrated.exemplars == record.exemplars
    assert len(migrated.runs) <= len(groups)


DAMAGES = [
    b"",
    b"\x00",
    b"\x90",
    b"\xc1?",
    encode_record([[1, 2, 3]] * 9),
    encode_record({"state": {"day": 3, "days": [{}]}}),
]


@pytest.mark.parametrize("blob", DAMAGES)
@pytest.mark.parametrize("version", [7, 8, 9, 10])
def test_damaged_records_are_set_aside_by_a_migration_and_all_others_are_read(
    version: int, blob: bytes, tmp_path: Path
) -> None:
    panes = ["pane", "pane5m", "pane1h"]
    kinds = {7: ["cycle"], 8: [*panes, "point", "series"], 9: panes, 10: ["point", "series", "evidence"]}[version]
    shutil.copy(FIXTURES / f"format-{version}.sqlite3", tmp_path / FILE_NAME)
    repository = SqliteRepository(tmp_path, format_version=version)
    before = {kind: repository.load(kind).keys() for kind in kinds if kind != "evidence"}  # which is joined
    for kind in kinds:
        repository.put(kind, [('["damaged"]', blob)])
    repository.commit()
    repository.close()
    repository = SqliteRepository(tmp_path)
    assert repository.load("damaged") == {f'{kind} ["damaged"]': blob for kind in kinds}
    assert {kind: repository.load(kind).keys() for kind in before} == before
    assert repository.load("identities").keys() == repository.load("series").keys()
    repository.close()
    faults = check_state(tmp_path, RECORD_KINDS).faults
    assert all(fault.endswith("it was set aside") for fault in faults)
    assert len(faults) == len(kinds)


def rename(repository: Repository) -> None:
    """A migration: what was stored as `old` is stored as `new`."""
    records = repository.load("old")
    repository.put("new", records.items())
    repository.delete("old", records)


def fail(repository: Repository) -> None:
    """A migration that fails half way."""
    rename(repository)
    raise StoreError("the disk is full")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    repository = SqliteRepository(tmp_path, format_version=1)
    repository.put("old", [("a", b"1")])
    repository.commit()
    repository.close()
    return tmp_path


def version_of(path: Path) -> int:
    database = sqlite3.connect(path)
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    database.close()
    return version


def test_migrations_run_in_order_and_leave_a_copy_of_what_was(directory: Path) -> None:
    def add(repository: Repository) -> None:
        repository.put("new", [("b", repository.load("new")["a"] + b"2")])

    repository = SqliteRepository(directory, format_version=3, migrations={1: rename, 2: add})
    assert (repository.load("old"), repository.load("new")) == ({}, {"a": b"1", "b": b"12"})
    repository.close()
    assert (version_of(directory / FILE_NAME), version_of(directory / "mlmon-format-1.sqlite3")) == (3, 1)


def test_a_migration_that_fails_changes_nothing(directory: Path) -> None:
    with pytest.raises(StoreError, match="the disk is full"):
        SqliteRepository(directory, format_version=2, migrations={1: fail})
    repository = SqliteRepository(directory, format_version=1)
    assert repository.load("old") == {"a": b"1"}
    repository.close()


def test_after_an_attempt_that_failed_a_later_one_works_with_a_copy_of_what_was(directory: Path) -> None:
    copy = directory / "mlmon-format-1.sqlite3"
    for _ in range(2):
        with pytest.raises(StoreError, match="the disk is full"):
            SqliteRepository(directory, format_version=2, migrations={1: fail})
    copy.write_bytes(b"of a copy that was cut off")
    copy.with_suffix(".part").write_bytes(b"likewise")
    SqliteRepository(directory, format_version=2, migrations={1: rename}).close()
    assert (version_of(directory / FILE_NAME), version_of(copy)) == (2, 1)
    assert not copy.with_suffix(".part").exists()


def test_a_format_without_a_migration_or_from_the_future_is_refused(directory: Path) -> None:
    for version in (3, 0):
        with pytest.raises(StoreError, match="has state of format 1"):
            SqliteRepository(directory, format_version=version, migrations={2: rename})
