from __future__ import annotations

import math

from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS, History

HOUR, DAY, FORTNIGHT = SPANS


def add(history: History, time_s: float, *, p95: float = 0.1, evidence: float = 0.0, version: str = "1") -> None:
    values = [10.0, 0.05, p95, math.nan, 0.0, math.nan]
    ratios = {"input.age": evidence / 6.0} if evidence else {}
    history.add("m", version, round(time_s * SECOND_NS), values, ratios)


def test_the_largest_tail_and_the_last_median_of_a_slot_are_kept() -> None:
    history = History()
    for time_s, p95 in ((3600, 0.1), (3605, 0.9), (3609, 0.2), (3620, 0.3)):
        add(history, time_s, p95=p95)
    rows = history.model_rows("m", "1", HOUR)
    assert [(time_ns // SECOND_NS, round(values[2], 6)) for time_ns, values in rows] == [(3615, 0.9), (3630, 0.3)]
    assert math.isnan(rows[0][1][3])
    assert history.first_ns("m", "1") == 0  # it may have been there before
    assert history.first_ns("m", "2") == 0


def test_a_stream_without_evidence_has_no_entries() -> None:
    history = History()
    add(history, 3600)
    assert history.stream_rows("m", "1", "input.age", HOUR) == []
    add(history, 3700, evidence=3.0)
    add(history, 3710, evidence=9.0)
    assert history.stream_rows("m", "1", "input.age", HOUR) == [(3720 * SECOND_NS, 1.5)]


def test_documents_that_did_not_change_and_older_ones_are_ignored() -> None:
    history = History()
    for time_s in (3700, 3700, 3600, 0):
        add(history, time_s)
    assert len(history.model_rows("m", "1", HOUR)) == 1


def test_fourteen_days_are_bounded_in_every_span() -> None:
    history = History()
    for quarter in range(15 * 96):
        add(history, 1_000_000 + 900 * quarter, evidence=1.0)
    counts = [len(history.model_rows("m", "1", span)) for span in SPANS]
    assert counts == [5, 97, 14 * 24 + 1]
    for span in SPANS:
        rows = history.stream_rows("m", "1", "input.age", span)
        assert len(rows) <= span.length_s // span.stream_slot_s + 1


def test_versions_that_are_silent_for_the_longest_span_are_dropped() -> None:
    history = History()
    add(history, 1_000_000, version="old")
    add(history, 1_000_000 + FORTNIGHT.length_s + 1, version="new")
    assert (history.first_ns("m", "old") > 0, history.first_ns("m", "new") > 0) == (False, True)
    assert history.model_rows("m", "old", DAY) == []
