"""Which streams share a record of evidence: always those of one model and of the same bins, and never too many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.measure import BankKey
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.evidence_slices import EVIDENCE, SLICE_STREAMS, SliceRecord, StreamSlices
from otel_mlmon.processor.state.repository import encode_record
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL

BINS: BankKey = 4, "both"
OTHER_MODEL = ModelKey("other", "1")


def streams_of(model: ModelKey, count: int) -> list[StreamKey]:
    return [StreamKey(model, f"input.f{number}") for number in range(count)]


def sizes_of(slices: StreamSlices, streams: list[StreamKey]) -> dict[str, int]:
    parts = [part for stream in streams if (part := slices.find(stream)) is not None]
    return {part.key: len(part.streams) for part in parts}


def test_streams_of_one_model_and_as_many_bins_share_slices_until_these_are_full() -> None:
    slices = StreamSlices()
    streams, others = streams_of(MODEL, SLICE_STREAMS + 2), streams_of(OTHER_MODEL, 2)
    for stream in (*streams, *others):
        slices.place(stream, BINS)
    learning = StreamKey(MODEL, "latency")
    slices.place(learning, None)
    name = '["digits", "1", ""]'
    assert sizes_of(slices, [*streams, *others, learning]) == {
        f"0000000001 {name}": SLICE_STREAMS, f"0000000002 {name}": 2, '0000000003 ["other", "1", ""]': 2,
        f"0000000004 {name}": 1,
    }  # fmt: skip


def test_a_stream_with_other_bins_leaves_its_slice_and_room_is_used_again() -> None:
    slices = StreamSlices()
    first, second, third = streams_of(MODEL, 3)
    (joined,) = slices.place(first, BINS)
    assert slices.place(second, BINS) == slices.place(second, BINS) == (joined,)
    left, other = slices.place(first, (5, "both"))
    assert (left, list(left.streams), list(other.streams)) == (joined, [second], [first])
    assert slices.place(third, BINS) == (joined,)
    assert (slices.remove(first), slices.find(first), slices.remove(first)) == (other, None, None)
    # One without streams is given up: its number is not used again.
    (new,) = slices.place(first, (5, "both"))
    assert (new.number, list(other.streams)) == (3, [])


def test_a_full_slice_that_a_stream_left_takes_another_one() -> None:
    slices = StreamSlices()
    *streams, last = streams_of(MODEL, SLICE_STREAMS + 1)
    for stream in streams:
        slices.place(stream, BINS)
    full = slices.remove(streams[5])
    assert slices.place(last, BINS) == (full,)


def make_record(count: int) -> SliceRecord:
    """A record of streams that had a few panes."""
    evaluator = DriftEvaluator(
        policy_for=lambda _: DetectionPolicy(tolerance=0.02, direction="both"), alarm_line_for=lambda _: 6.0
    )
    streams, rng = streams_of(MODEL, count), np.random.default_rng(3)
    reference = ReferenceCounts(
        bins=HistogramBins(names=("a", "b", "c", "d"), is_ordered=False), counts=np.array([5, 300, 400, 400])
    )
    for end_ns in range(1, 31):
        windows = [
            StreamWindow(
                stream=stream, start_ns=end_ns - 1, end_ns=end_ns, reference=reference,
                pane=rng.multinomial(200, [0.25] * 4), rolling=np.full(4, 50), rolling_start_ns=0,
            )
            for stream in streams
        ]  # fmt: skip
        scores = [score for _, score in evaluator.evaluate(windows)]
    return SliceRecord(
        number=7, model=MODEL, streams=[stream.stream for stream in streams], scores=scores,
        evidence=evaluator.pack(streams), entry=30,
    )  # fmt: skip


def test_a_stored_slice_keeps_its_number_and_takes_its_streams_from_others() -> None:
    slices, record = StreamSlices(), make_record(3)
    first, second, third = record.list_streams()
    (former,) = slices.place(second, BINS)
    stored = slices.add_stored(record, BINS)
    assert (stored.key, list(stored.streams), list(former.streams)) == (
        '0000000007 ["digits", "1", ""]', [first, second, third], [],
    )  # fmt: skip
    (another,) = slices.place(StreamKey(OTHER_MODEL, "latency"), BINS)
    assert (another.number, slices.place(StreamKey(MODEL, "latency"), BINS)) == (8, (stored,))


def test_a_record_is_read_as_it_was_written() -> None:
    record = make_record(3)
    blob = encode_record(record)
    read = EVIDENCE.decode(blob)
    assert encode_record(read) == blob
    assert (read.list_streams(), read.scores, read.entry) == (record.list_streams(), record.scores, 30)


def test_a_record_that_contradicts_itself_is_refused() -> None:
    record = make_record(3)
    for other, problem in (
        (replace(record, scores=record.scores[:2]), "2 scores of 3 streams"),
        (replace(record, streams=["a", "b", "a"]), "3 scores of 2 streams"),
        (
            replace(record, streams=["a", "b"], scores=record.scores[:2]),
            "there are 3 rows of evidence and 3 lists of",
        ),
    ):
        with pytest.raises(StoreError, match=f"the record contradicts itself: {problem}"):
            EVIDENCE.decode(encode_record(other))
