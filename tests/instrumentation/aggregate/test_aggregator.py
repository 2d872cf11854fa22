from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.instrumentation.aggregate.aggregator import (
    HOLD_S,
    MetricSnapshot,
    PredictionAggregator,
    count_labels,
    merge_snapshots,
)
from otel_mlmon.instrumentation.decode.decoder import TensorDecoder
from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity
from otel_mlmon.instrumentation.decode.predictions import (
    ClassificationHead,
    InputSummary,
    PredictedLabels,
    Predictions,
    encode_distinct_texts,
)
from otel_mlmon.instrumentation.runtime.call import CallTuple
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.types import ModelKey
from otel_mlmon.vocabulary import BUCKETS, ModelVocabularies, TextBuckets
from tests.support.calls import batch_of, copy_calls, labels_of, summarize

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
    snapshot = summarize(with_errors(copy_calls(calls), errors), ModelOptions(), cuts=cuts)
    seconds = [(1000 + 1000 * at) / 1e9 for at in range(len(errors))]
    for name, is_bad in (("", False), (FAILED, True)):
        mine = [second for second, bad in zip(seconds, errors, strict=True) if bad is is_bad]
        if not mine:
            assert name not in snapshot.durations_s
            continue
        assert snapshot.durations_s[name].tolist() == mine
        assert snapshot.slowest_calls[name] == (max(mine), seconds.index(max(mine)))
    assert snapshot.inputs.samples == 2 * errors.count(False)
    assert snapshot.batch_sizes.tolist() == [2.0] * errors.count(False)


@given(st.lists(st.integers(0, 3), max_size=20))
def test_two_classes_of_one_name_are_one_label(codes: list[int]) -> None:
    table = ["a", "b", "a", "c"]
    assert count_labels(
        PredictedLabels(np.array(codes, dtype=np.int64), np.zeros(len(codes), np.int64), table)
    ) == Counter(table[code] for code in codes)


def test_memory_is_flat_over_three_hundred_thousand_labels_and_categories() -> None:
    """Three hundred calls of a thousand rows, every label and every category another one."""
    rows, limit = 1000, 50
    options = ModelOptions(categorical=["f0"], output_kind="labels")
    first = copy_calls([({"x": np.arange(500).reshape(-1, 1)}, {"y": np.arange(rows)})])
    decoder = TensorDecoder(first[0][0], options=lambda _: options, max_features=10)
    aggregator = PredictionAggregator(admit=ModelVocabularies(limit=limit).limit_names)
    blocks: list[int] = []
    names: set[str] = set()
    total = 0
    for call in range(300):
        numbers = np.arange(call * rows, (call + 1) * rows)
        record = (*first[0][:4], numbers[:500].tobytes(), numbers.tobytes(), None)
        aggregator.add_predictions(decoder.decode_batch(batch_of([record])))
        if call % 30 == 29:
            (snapshot,) = aggregator.take_snapshots()
            total += sum(labels_of(snapshot).values())
            names |= set(labels_of(snapshot)) | set(snapshot.inputs.categories["f0"])
            blocks.append(sys.getallocatedblocks())
    assert total == 300_000
    # Numbers above 10,000 are a customer's, or the like: one of 64 buckets.
    assert (len(names), semconv.OTHER in names) == (limit + 1 + BUCKETS, True)
    assert blocks[-1] - blocks[1] < 1000


def as_snapshot(numbers: list[float], counts: dict[str, int], samples: int) -> MetricSnapshot:
    values = np.array(numbers)
    return MetricSnapshot(
        model=ModelKey("m", ""),
        durations_s={"": values} if numbers else {},
        slowest_calls={"": (max(numbers), f"context of {max(numbers)}")} if numbers else {},
        batch_sizes=values + 1,
        labels={"": counts, "color": counts},
        uncounted={"": samples},
        confidences={"": values + 2},
        values={"y": values + 3},
        item_counts={"boxes": values},
        item_confidences={"boxes": values + 5},
        inputs=InputSummary(
            features={"f0": values + 4},
            missing={"f1": samples},
            categories={"f2": counts, f"only {samples}": {"x": 1}},
            samples=samples,
        ),
    )


def as_tuple(snapshot: MetricSnapshot) -> tuple[object, ...]:
    inputs = snapshot.inputs
    return (
        snapshot.model,
        {error: values.tolist() for error, values in snapshot.durations_s.items()},
        snapshot.slowest_calls,
        snapshot.batch_sizes.tolist(),
        snapshot.labels,
        snapshot.uncounted,
        {name: values.tolist() for name, values in snapshot.confidences.items()},
        {name: values.tolist() for name, values in snapshot.values.items()},
        {name: values.tolist() for name, values in snapshot.item_counts.items()},
        {name: values.tolist() for name, values in snapshot.item_confidences.items()},
        {name: values.tolist() for name, values in inputs.features.items()},
        inputs.missing,
        inputs.categories,
        inputs.samples,
    )


SNAPSHOTS = st.builds(
    as_snapshot,
    st.lists(st.floats(0, 100), max_size=5),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
    st.integers(0, 9),
)


@settings(deadline=None, max_examples=50)
@given(SNAPSHOTS, SNAPSHOTS, SNAPSHOTS)
def test_merging_is_associative(a: MetricSnapshot, b: MetricSnapshot, c: MetricSnapshot) -> None:
    merged = as_tuple(merge_snapshots([a, b, c]))
    assert merged == as_tuple(merge_snapshots([merge_snapshots([a, b]), c]))
    assert merged == as_tuple(merge_snapshots([a, merge_snapshots([b, c])]))


def test_merging_adds_everything_up_and_keeps_the_slowest_call() -> None:
    merged = merge_snapshots([as_snapshot([1.0, 3.0], {"a": 2}, 2), as_snapshot([2.0], {"a": 1, "b": 5}, 1)])
    assert as_tuple(merged) == (
        ModelKey("m", ""),
        {"": [1.0, 3.0, 2.0]},
        {"": (3.0, "context of 3.0")},
        [2.0, 4.0, 3.0],
        {"": {"a": 3, "b": 5}, "color": {"a": 3, "b": 5}},
        {"": 3},
        {"": [3.0, 5.0, 4.0]},
        {"y": [4.0, 6.0, 5.0]},
        {"boxes": [1.0, 3.0, 2.0]},
        {"boxes": [6.0, 8.0, 7.0]},
        {"f0": [5.0, 7.0, 6.0]},
        {"f1": 3},
        {"f2": {"a": 3, "b": 5}, "only 2": {"x": 1}, "only 1": {"x": 1}},
        3,
    )


def test_of_equally_slow_calls_the_first_is_kept() -> None:
    first = as_snapshot([2.0], {}, 0)
    later = dataclasses.replace(first, slowest_calls={"": (2.0, "later")})
    assert merge_snapshots([first, later]).slowest_calls == {"": (2.0, "context of 2.0")}


def observed(labels: Sequence[str], name: str = "m") -> Predictions:
    """A call a label, whose words are declared nowhere."""
    codes, table = encode_distinct_texts(labels)
    calls = np.arange(len(labels))
    none = np.zeros(len(labels), dtype=np.int64)
    return Predictions(
        model=ModelIdentity(name=name, version="1", provider="", runtime_version=""),
        operation="observe",
        started_ns=none,
        duration_ns=none,
        contexts=[None] * len(labels),
        errors=[None] * len(labels),
        batch_sizes=np.ones(len(labels), dtype=np.int64),
        heads={"": ClassificationHead(labels=PredictedLabels(codes, calls, table), uncounted=none)},
    )


class Worker:
    """A process that counts the labels of one model, of which it names 50."""

    def __init__(self) -> None:
        self.now_s = 0.0
        vocabularies = ModelVocabularies(limit=50, buckets_of=lambda model: TextBuckets(key="", model=model))
        self._aggregator = PredictionAggregator(
            admit=vocabularies.limit_names, settles=vocabularies.is_naming_possible, clock=lambda: self.now_s
        )

    def take(self, labels: Sequence[str], *, may_hold: bool = True) -> Counter[str]:
        if labels:
            self._aggregator.add_predictions(observed(labels))
        counts: Counter[str] = Counter()
        for snapshot in self._aggregator.take_snapshots(may_hold=may_hold):
            counts.update(labels_of(snapshot))
        return counts


def test_eight_workers_agree_from_the_first_label_on_which_of_eighty_words_are_buckets() -> None:
    random = np.random.default_rng(0)
    words = [f"word {number}" for number in range(80)]
    bucket_of = TextBuckets(key="", model="m").assign_bucket
    for _ in range(8):
        worker, counts, said = Worker(), Counter[str](), Counter[str]()
        for _ in range(60):  # seconds of three calls each
            labels = random.choice(words, size=3).tolist()
            said.update(map(bucket_of, labels))
            counts.update(worker.take(labels))
            worker.now_s += 0.4
        assert counts == said


def test_few_words_are_counted_by_name_as_soon_as_hardly_one_is_missing_and_later_ones_in_buckets() -> None:
    worker = Worker()
    assert worker.take(["ok", "bad", "ok"]) == {}
    assert worker.take(["bad"]) == {"ok": 2, "bad": 2}
    assert worker.take(["new"]) == {"new": 1}
    many = [f"word {number}" for number in range(80)]
    counts = worker.take(many)
    assert (sum(counts.values()), len([name for name in counts if "#" not in name])) == (80, 47)


def test_what_is_held_leaves_by_name_after_a_time_and_at_a_flush() -> None:
    worker = Worker()
    assert worker.take(["ok"]) == {}
    worker.now_s = HOLD_S - 1
    assert worker.take([]) == {}
    worker.now_s = HOLD_S
    assert worker.take([]) == {"ok": 1}
    assert Worker().take(["ok"], may_hold=False) == {"ok": 1}


def test_held_categories_of_a_feature_leave_together_when_the_first_has_waited_long_enough() -> None:
    now_s = 0.0
    admitted: list[tuple[str, str, str, dict[str, int], tuple[str, ...]]] = []

    def admit(
        model: str, head: str, feature: str, counts: Mapping[str, int], declared: Sequence[str]
    ) -> Mapping[str, int]:
        admitted.append((model, head, feature, dict(counts), tuple(declared)))
        return {name.upper(): count for name, count in counts.items()}

    aggregator = PredictionAggregator(admit=admit, settles=lambda *_: False, clock=lambda: now_s)
    call = dataclasses.replace(observed(["ok"]), heads={})
    for at_s, counts in ((100.0, {"red": 2}), (99.0 + HOLD_S, {"red": 1, "blue": 4})):
        now_s = at_s
        aggregator.add_predictions(
            dataclasses.replace(call, inputs=InputSummary(categories={"colour": counts}, samples=3))
        )
        (snapshot,) = aggregator.take_snapshots(may_hold=True)
        assert as_tuple(snapshot) == as_tuple(
            MetricSnapshot(
                model=ModelKey("m", "1"),
                batch_sizes=np.ones(1),
                inputs=InputSummary(categories={"colour": {}}, samples=3),
            )
        )
    now_s = 100.0 + HOLD_S
    (snapshot,) = aggregator.take_snapshots(may_hold=True)
    held = InputSummary(categories={"colour": {"RED": 3, "BLUE": 4}})
    assert as_tuple(snapshot) == as_tuple(MetricSnapshot(model=ModelKey("m", "1"), inputs=held))
    assert admitted == [("m", "", "colour", {"red": 3, "blue": 4}, ())]
    assert aggregator.take_snapshots() == []


def test_by_default_nothing_is_held_and_whatever_is_held_is_taken() -> None:
    plain = PredictionAggregator(admit=lambda *given: given[3])
    plain.add_predictions(observed(["ok"]))
    assert [labels_of(snapshot) for snapshot in plain.take_snapshots(may_hold=True)] == [{"ok": 1}]
    holding = PredictionAggregator(admit=lambda *given: given[3], settles=lambda *_: False)
    holding.add_predictions(observed(["ok"]))
    assert [labels_of(snapshot) for snapshot in holding.take_snapshots()] == [{"ok": 1}]
