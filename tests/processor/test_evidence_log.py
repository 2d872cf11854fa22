"""Evidence that is stored now and then, and replayed: the same, bit for bit, wherever the processor was killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.evidence_log import CYCLE, LOG, STORED_AFTER_NS, EvidenceLog
from otel_mlmon.processor.evidence_slices import EVIDENCE
from otel_mlmon.processor.state.repository import encode_record, load_records
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.progress import StreamAbsence
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.processor.window.rolling import RollingWindows
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.processor.window.window import (
    HistogramBins,
    PaneCounts,
    PaneTable,
    ReferenceCounts,
    StreamKey,
    StreamWindow,
)
from otel_mlmon.sketch.moments import ExactSum
from tests.support.observations import MODEL, SECOND, T0

STREAMS = [StreamKey(MODEL, f"input.f{number}") for number in range(6)]
PANE_NS = 10 * SECOND


class CountingRepository:
    """The built-in repository; counts the records that are put, by kind, and refuses a commit when it is told to."""

    def __init__(self, directory: Path) -> None:
        self._repository = SqliteRepository(directory, synchronous="OFF")
        self.puts: Counter[str] = Counter()
        self.refuses = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def put(self, kind: str, records: Iterable[tuple[str, bytes]], /) -> None:
        listed = list(records)
        self.puts[kind] += len(listed)
        self._repository.put(kind, listed)
        if self.refuses:
            self._repository._database.execute("ROLLBACK")
            raise StoreError("the disk is full")


class Bench:
    """Six streams, each with a pane every ten seconds, of which one has moved."""

    def __init__(self, repository: CountingRepository) -> None:
        self.repository = repository
        self.rng = np.random.default_rng(7)
        self.references = {stream: make_reference(1000) for stream in STREAMS}
        self.now_ns = T0
        self.open()

    def open(self) -> None:
        self.log = EvidenceLog(
            DriftEvaluator(
                policy_for=lambda _: DetectionPolicy(tolerance=0.02, direction="both"),
                alarm_line_for=lambda count: 6.0 + count / 10,
            )
        )

    def restart(self) -> None:
        """As after `kill -9`: what was not committed is gone."""
        self.open()
        self.log.load(self.repository, self.find, now_ns=self.now_ns)

    def find(self, stream: StreamKey) -> StreamWindows | None:
        if stream not in self.references:
            return None
        learned = StreamReference(stream=stream.stream, settings=ModelWindowSettings())
        learned.reference = self.references[stream]
        rolling = RollingWindows(3600 * SECOND)
        counts = PaneCounts(self.now_ns - PANE_NS, self.now_ns, 0, np.array([5, 5, 5, 5]), 0, ExactSum())
        rolling.add(PaneTable.build({stream.stream: counts}), counts.start_ns, counts.end_ns)
        return StreamWindows(key=stream, learned=learned, rolling=rolling)

    def pane(self, *, streams: Iterable[StreamKey] = STREAMS, is_saved: bool = True) -> None:
        self.now_ns += PANE_NS
        windows = []
        for number, stream in enumerate(STREAMS):
            shares = [0.1, 0.2, 0.3, 0.4] if number == 0 else [0.25] * 4
            counts = self.rng.multinomial(300 if self.rng.random() < 0.9 else 0, shares)
            bins = self.references[stream].bins.count if stream in self.references else 0
            counts = np.array([*counts[: bins - 1], counts[bins - 1 :].sum()])
            if stream in streams:
                windows.append(self.window(stream, counts))
        self.log.score_panes(windows)
        if is_saved:
            self.save()

    def window(self, stream: StreamKey, counts: Any) -> StreamWindow:
        return StreamWindow(
            stream=stream,
            start_ns=self.now_ns - PANE_NS,
            end_ns=self.now_ns,
            reference=self.references[stream],
            pane=counts,
            rolling=np.array([5, 5, 5, 5]),
            rolling_start_ns=self.now_ns - PANE_NS,
            absence=None if counts.any() else StreamAbsence(self.now_ns - PANE_NS, 3, 9),
        )

    def save(self, *, is_last: bool = False) -> None:
        self.log.save(self.repository, now_ns=self.now_ns, is_last=is_last)
        self.repository.commit()
        self.log.mark_saved()

    def facts(self) -> dict[StreamKey, tuple[bytes, str]]:
        """Evidence and score of each stream."""
        evaluator = self.log.evaluator
        return {
            stream: (encode_record(evaluator.pack([stream])), repr(self.log.find_score(stream)))
            for stream in sorted(evaluator.streams())
        }


def make_reference(count: int, bins: int = 4) -> ReferenceCounts:
    names = ("a", "b", "c", "d")[:bins]
    return ReferenceCounts(bins=HistogramBins(names=names, is_ordered=False), counts=np.full(bins, count // bins))


def score_of(bench: Bench, stream: StreamKey) -> DriftScore:
    score = bench.log.find_score(stream)
    assert score is not None
    return score


def scored_streams(bench: Bench) -> set[StreamKey]:
    return {StreamKey(model, name) for model, scores in bench.log.scores.items() for name in scores}


@pytest.fixture
def bench(tmp_path: Path) -> Iterable[Bench]:
    repository = CountingRepository(tmp_path)
    yield Bench(repository)
    repository.close()


def test_a_start_at_any_pane_finds_the_evidence_as_it_was(bench: Bench) -> None:
    states = set()
    for _ in range(40):
        bench.pane()
        before = bench.facts()
        bench.restart()
        assert bench.facts() == before
        states.add(score_of(bench, STREAMS[0]).state)
    assert "drift" in states


def test_panes_are_stored_with_each_commit_and_evidence_now_and_then(bench: Bench) -> None:
    panes = 120
    for _ in range(panes):
        bench.pane()
        entries = bench.repository.load(LOG.name)
        assert len(entries) <= STORED_AFTER_NS // PANE_NS + 1
    assert bench.repository.puts[LOG.name] == panes
    # The six streams are in one slice, which is stored when they are new, and a minute after each first pane since.
    assert bench.repository.puts[EVIDENCE.name] == 1 + (panes - 1) * PANE_NS // (STORED_AFTER_NS + PANE_NS)
    bench.save(is_last=True)
    assert bench.repository.load(LOG.name) == {}
    for _ in range(3):
        before = bench.facts()
        bench.restart()
        assert bench.facts() == before
        bench.pane()


def test_evidence_against_a_new_reference_is_stored_at_once(bench: Bench) -> None:
    for _ in range(20):
        bench.pane()
    bench.references[STREAMS[1]] = make_reference(2000)
    written = bench.repository.puts[EVIDENCE.name]
    bench.pane(streams=STREAMS[1:2])
    assert bench.repository.puts[EVIDENCE.name] >= written + 1
    before = bench.facts()
    bench.restart()
    assert bench.facts() == before


def test_what_was_dropped_does_not_come_back(bench: Bench) -> None:
    for _ in range(20):
        bench.pane()
    bench.log.drop_stream([STREAMS[0], STREAMS[1]])
    bench.pane(streams=STREAMS[1:])
    del bench.references[STREAMS[0]]
    before = bench.facts()
    assert STREAMS[0] not in before
    bench.restart()
    assert bench.facts() == before
    assert bench.log.find_score(STREAMS[0]) is None


def test_a_stream_that_is_dropped_after_its_last_pane_was_scored_is_not_stored(bench: Bench) -> None:
    for _ in range(20):
        bench.pane()
    bench.pane(is_saved=False)
    bench.log.drop_stream(STREAMS[:2])
    bench.save()
    for _ in range(10):
        bench.pane(streams=STREAMS[2:])
    before = bench.facts()
    assert list(before) == STREAMS[2:]
    bench.restart()
    assert bench.facts() == before


def test_panes_that_were_judged_by_two_alarm_lines_before_a_commit_are_replayed_against_their_own(bench: Bench) -> None:
    bench.references[STREAMS[5]] = make_reference(1000, bins=3)  # so that it is stored apart from the others
    for _ in range(20):
        bench.pane(streams=STREAMS[:5])
    bench.pane(streams=STREAMS[:3], is_saved=False)
    bench.pane(streams=STREAMS[3:])
    lines = {score_of(bench, stream).log10_alarm_line for stream in STREAMS}
    assert lines == {6.5, 6.6}
    before = bench.facts()
    bench.restart()
    assert bench.facts() == before


def test_a_damaged_slice_costs_the_evidence_of_its_streams_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.references[STREAMS[1]] = bench.references[STREAMS[4]] = make_reference(1000, bins=3)
    for _ in range(20):
        bench.pane()
    before = bench.facts()
    (first, second) = bench.repository.load(EVIDENCE.name)
    bench.repository.put(EVIDENCE.name, [(first, b"no slice")])
    bench.restart()
    assert any(f"set aside: {EVIDENCE.name} {first}" in message for message in caplog.messages)
    kept = [STREAMS[1], STREAMS[4]]
    assert bench.facts() == {stream: before[stream] for stream in kept}
    bench.pane()
    assert list(bench.facts()) == STREAMS
    assert second in bench.repository.load(EVIDENCE.name)


def test_a_stream_that_is_judged_by_other_bins_is_in_another_slice(bench: Bench) -> None:
    for _ in range(20):
        bench.pane()
    bench.references[STREAMS[1]] = make_reference(1000, bins=3)
    bench.pane(streams=STREAMS[1:2])
    records = [EVIDENCE.decode(blob) for blob in bench.repository.load(EVIDENCE.name).values()]
    assert [record.list_streams() for record in records] == [[STREAMS[0], *STREAMS[2:]], [STREAMS[1]]]
    before = bench.facts()
    bench.restart()
    assert bench.facts() == before


def test_a_commit_that_fails_is_made_good_by_the_next(bench: Bench) -> None:
    for number in range(30):
        if number % 3 == 1:
            bench.repository.refuses = True
            if number == 16:
                bench.log.drop_stream(STREAMS[2:3])
            with pytest.raises(StoreError):
                bench.pane()
            bench.repository.refuses = False
        else:
            bench.pane()
            before = bench.facts()
            if number % 5 == 0:
                bench.restart()
                assert bench.facts() == before
    before = bench.facts()
    bench.restart()
    assert bench.facts() == before


def test_evidence_that_is_judged_otherwise_now_is_not_replayed(bench: Bench) -> None:
    for _ in range(20):
        bench.pane()
    stored = {stream: score_of(bench, stream) for stream in STREAMS}
    tolerance = 0.05
    bench.log = EvidenceLog(
        DriftEvaluator(
            policy_for=lambda _: DetectionPolicy(tolerance=tolerance, direction="both"), alarm_line_for=lambda _: 7.0
        )
    )
    bench.log.load(bench.repository, bench.find, now_ns=bench.now_ns)
    assert scored_streams(bench) == set(stored)
    bench.pane()
    assert score_of(bench, STREAMS[0]).state == "learning"


def test_a_damaged_entry_is_set_aside_and_everything_else_is_replayed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        bench.pane()
    (first, *_) = bench.repository.load(LOG.name)
    bench.repository.put(LOG.name, [(first, b"no entry")])
    bench.restart()
    assert any(f"set aside: {LOG.name} {first}" in message for message in caplog.messages)
    assert scored_streams(bench) == set(STREAMS)


def test_a_cycle_is_stored_with_the_evidence_of_its_stream(bench: Bench) -> None:
    bench.now_ns = T0 // (3600 * SECOND) * (3600 * SECOND)
    for _ in range(370):
        bench.pane()
    assert len(bench.repository.load(CYCLE.name)) == len(STREAMS)
    assert bench.repository.puts[CYCLE.name] == 2 * len(STREAMS)  # when it began, and after an hour


def test_the_last_save_stores_all_of_every_daily_cycle(bench: Bench) -> None:
    bench.now_ns = T0 // (3600 * SECOND) * (3600 * SECOND)
    for _ in range(40):
        bench.pane()
    cycles = bench.log.evaluator.cycles
    before = {stream: encode_record(cycles.state(stream)) for stream in STREAMS}
    bench.save(is_last=True)  # the pane before was stored already
    stored = load_records(bench.repository, CYCLE).values()
    assert {record.stream: encode_record(record.state) for record in stored} == before
    bench.restart()
    bench.pane()
    assert cycles.state(STREAMS[1]).today.sum() < bench.log.evaluator.cycles.state(STREAMS[1]).today.sum()


def test_learning_streams_are_stored_without_evidence(bench: Bench) -> None:
    bench.now_ns += PANE_NS
    window = bench.window(STREAMS[0], np.zeros(0, dtype=np.int64)).replace(reference=None, learned=40)
    bench.log.score_panes([window])
    bench.save()
    assert bench.repository.puts == Counter({EVIDENCE.name: 1})
    bench.restart()
    assert score_of(bench, STREAMS[0]).reference_count == 40
    assert list(bench.log.evaluator.streams()) == []
