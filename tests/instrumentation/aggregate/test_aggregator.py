from __future__ import annotations

import sys
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.instrumentation.aggregate.aggregator import Aggregator, label_counts
from otel_mlmon.instrumentation.decode.decoder import Reader
from otel_mlmon.instrumentation.decode.predictions import Labels
from otel_mlmon.instrumentation.decode.vocabulary import Vocabularies
from otel_mlmon.instrumentation.runtime.call import CallTuple
from otel_mlmon.instrumentation.settings import ModelOptions
from tests.support.calls import added_up, batch_of, copied

FAILED = "ValueError"


def with_errors(records: list[CallTuple], errors: list[bool]) -> list[CallTuple]:
    """Some of the calls, failed: they hold no data."""
    return [
        (plan, start, end + 1000 * at, at, () if bad else given, () if bad else made, FAILED if bad else None)
        for at, ((plan, start, end, _, given, made, _), bad) in enumerate(zip(records, errors, strict=True))
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.lists(st.integers(0, 8), max_size=3))
def test_durations_by_error_with_the_slowest_call_of_each(errors: list[bool], cuts: list[int]) -> None:
    calls = [({"x": np.ones((2, 1))}, {"y": np.full((2, 1), 3.0)}) for _ in errors]
    found = added_up(with_errors(copied(calls), errors), ModelOptions(), cuts=cuts)
    seconds = [(1000 + 1000 * at) / 1e9 for at in range(len(errors))]
    for name, is_bad in (("", False), (FAILED, True)):
        mine = [second for second, bad in zip(seconds, errors, strict=True) if bad is is_bad]
        if not mine:
            assert name not in found.durations_s
            continue
        assert found.durations_s[name].numbers.tolist() == mine
        assert found.durations_s[name].exemplar == (max(mine), seconds.index(max(mine)))
    assert found.samples == 2 * errors.count(False)
    assert found.batch_sizes.numbers.tolist() == [2.0] * errors.count(False)


@given(st.lists(st.integers(0, 3), max_size=20))
def test_two_classes_of_one_name_are_one_label(codes: list[int]) -> None:
    table = ["a", "b", "a", "c"]
    assert label_counts(Labels(np.array(codes, dtype=np.int64), np.zeros(len(codes), np.int64), table)) == Counter(
        table[code] for code in codes
    )


def test_memory_is_flat_over_a_million_labels_and_categories() -> None:
    """A thousand calls of a thousand rows, every label and every category another one."""
    rows, limit = 1000, 50
    said = ModelOptions(categorical=["f0"], output_kind="labels")
    first = copied([({"x": np.arange(500).reshape(-1, 1)}, {"y": np.arange(rows)})])
    reader = Reader(first[0][0], options=lambda _: said, max_features=10)
    aggregator = Aggregator(admit=Vocabularies(limit=limit).admit)
    blocks: list[int] = []
    names: set[str] = set()
    total = 0
    for call in range(1000):
        numbers = np.arange(call * rows, (call + 1) * rows)
        record = (*first[0][:4], numbers[:500].tobytes(), numbers.tobytes(), None)
        aggregator.add(reader.read(batch_of([record])))
        if call % 100 == 99:
            (snapshot,) = aggregator.take()
            total += snapshot.labels.total
            names |= set(snapshot.labels.counts) | set(snapshot.categories["f0"].counts)
            blocks.append(sys.getallocatedblocks())
    assert total == 1_000_000
    assert (len(names), semconv.OTHER in names) == (limit + 1, True)
    assert blocks[-1] - blocks[1] < 1000
