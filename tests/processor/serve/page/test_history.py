from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.serve.page.history import (
    HISTORY,
    SAVE_INTERVAL_NS,
    SECOND_NS,
    SPANS,
    PageHistory,
    load_history,
    save_history,
)
from otel_mlmon.processor.state.repository import DAMAGED, encode_record
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.types import ModelKey

HOUR, DAY, FORTNIGHT = SPANS


def add(history: PageHistory, time_s: float, *, p95: float = 0.1, evidence: float = 0.0, version: str = "1") -> None:
    values = [10.0, 0.05, p95, math.nan, 0.0, math.nan]
    ratios = {"input.age": evidence / 6.0} if evidence else {}
    history.add(ModelKey("m", version), round(time_s * SECOND_NS), values, ratios)


def test_the_largest_tail_and_the_last_median_of_a_slot_are_kept() -> None:
    history = PageHistory()
    for time_s, p95 in ((3600, 0.1), (3605, 0.9), (3609, 0.2), (3620, 0.3)):
        add(history, time_s, p95=p95)
    rows = history.model_rows("m", "1", HOUR)
    assert [(time_ns // SECOND_NS, round(values[2], 6)) for time_ns, values in rows] == [(3615, 0.9), (3630, 0.3)]
    assert math.isnan(rows[0][1][3])
    assert history.first_ns("m", "1") == 0  # it may have been there before
    assert history.first_ns("m", "2") == 0


def test_a_stream_without_evidence_has_no_entries() -> None:
    history = PageHistory()
    add(history, 3600)
    assert history.stream_rows("m", "1", "input.age", HOUR) == []
    add(history, 3700, evidence=3.0)
    add(history, 3710, evidence=9.0)
    assert history.stream_rows("m", "1", "input.age", HOUR) == [(3720 * SECOND_NS, 1.5)]


def test_documents_that_did_not_change_and_older_ones_are_ignored() -> None:
    history = PageHistory()
    for time_s in (3700, 3700, 3600, 0):
        add(history, time_s)
    assert len(history.model_rows("m", "1", HOUR)) == 1


def test_fourteen_days_are_bounded_in_every_span() -> None:
    history = PageHistory()
    for quarter in range(15 * 96):
        add(history, 1_000_000 + 900 * quarter, evidence=1.0)
    counts = [len(history.model_rows("m", "1", span)) for span in SPANS]
    assert counts == [5, 97, 14 * 24 + 1]
    for span in SPANS:
        rows = history.stream_rows("m", "1", "input.age", span)
        assert len(rows) <= span.length_s // span.stream_slot_s + 1


def test_versions_that_are_silent_for_the_longest_span_are_dropped() -> None:
    history = PageHistory()
    add(history, 1_000_000, version="old")
    add(history, 1_000_000 + FORTNIGHT.length_s + 1, version="new")
    assert (history.first_ns("m", "old") > 0, history.first_ns("m", "new") > 0) == (False, True)
    assert history.model_rows("m", "old", DAY) == []


def rows_of(history: PageHistory) -> list[Any]:
    return [
        [repr(history.model_rows("m", version, span)), history.stream_rows("m", version, "input.age", span)]
        for version in ("1", "2")
        for span in SPANS
    ] + [history.first_ns("m", version) for version in ("1", "2")]


def test_a_stored_history_comes_back_whole(tmp_path: Path) -> None:
    history = PageHistory()
    for quarter in range(200):
        add(history, 1_000_000 + 900 * quarter, evidence=quarter % 3)
    add(history, 1_200_000, version="2")
    repository = SqliteRepository(tmp_path)
    save_history(history, repository)
    repository.commit()
    restored = PageHistory()
    load_history(restored, repository)
    assert rows_of(restored) == rows_of(history)
    assert restored.first_ns("m", "2") == 1_200_000 * SECOND_NS
    add(restored, 1_300_000, evidence=2.0)
    add(history, 1_300_000, evidence=2.0)
    assert rows_of(restored) == rows_of(history)
    repository.close()


def test_a_history_is_stored_every_ten_minutes_and_at_the_end() -> None:
    history = PageHistory()
    stored = []
    for minute in range(60):
        add(history, 1_000_000 + 60 * minute)
        stored += [record.last_ns for record in history.pop_changes(is_last=False)[0]]
    assert np.diff(stored).tolist() == [SAVE_INTERVAL_NS + 60 * SECOND_NS] * 5
    assert [record.last_ns for record in history.pop_changes(is_last=True)[0]] == [(1_000_000 + 59 * 60) * SECOND_NS]
    assert history.pop_changes(is_last=True) == ([], [])


def test_what_could_not_be_stored_is_stored_with_the_next_commit(tmp_path: Path) -> None:
    history = PageHistory()
    add(history, 3600)
    repository = SqliteRepository(tmp_path)
    save_history(history, repository)
    with pytest.raises(StoreError):
        repository.put("history", [("k", None)])  # type: ignore[list-item]
    save_history(history, repository)
    repository.commit()
    restored = PageHistory()
    load_history(restored, repository)
    assert rows_of(restored) == rows_of(history)
    repository.close()


def test_the_history_of_a_version_that_is_gone_is_removed_from_the_store(tmp_path: Path) -> None:
    history = PageHistory()
    repository = SqliteRepository(tmp_path)
    add(history, 3600)
    save_history(history, repository)
    add(history, 3600 + 15 * 86_400, version="2")
    save_history(history, repository)
    repository.commit()
    assert list(repository.load("history")) == ['["m", "2", ""]']
    repository.close()


def test_a_history_of_other_columns_is_set_aside(tmp_path: Path) -> None:
    history = PageHistory()
    add(history, 3600)
    (record,) = history.pop_changes(is_last=True)[0]
    hour = replace(record.spans["1h"], values=np.zeros((2, 1)))
    repository = SqliteRepository(tmp_path)
    repository.put(HISTORY.name, [("k", encode_record(replace(record, spans={"1h": hour}), is_compressed=True))])
    restored = PageHistory()
    load_history(restored, repository)
    assert restored.model_rows("m", "1", HOUR) == []
    assert list(repository.load(DAMAGED)) == ["history k"]
    repository.close()


def test_an_older_record_does_not_replace_what_is_there() -> None:
    history = PageHistory()
    add(history, 3600)
    (record,) = history.pop_changes(is_last=True)[0]
    add(history, 3700)
    history.restore(record)
    assert len(history.model_rows("m", "1", HOUR)) == 2
