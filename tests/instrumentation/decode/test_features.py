"""Which columns of inputs are features, what they are called, and which are categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.features import MAX_WIDE_VALUES, FeatureProfiler
from otel_mlmon.instrumentation.decode.predictions import InputSummary
from otel_mlmon.instrumentation.runtime.call import CallTuple, Plan
from otel_mlmon.vocabulary import TextPseudonymizer
from tests.support.calls import Node, batch_of, copy_calls

OUTPUT = {"y": np.zeros((1, 1), np.float32)}


KEEP = TextPseudonymizer(buckets=None)


def profile(
    calls: Sequence[Mapping[str, Any]],
    *,
    nodes: Mapping[str, Node] | None = None,
    names: Sequence[str] = (),
    categorical: Sequence[str] | None = None,
    limit: int = 100,
    namer: TextPseudonymizer = KEEP,
) -> tuple[list[InputSummary], list[str]]:
    """The summary after each call, and what was noted."""
    records: list[CallTuple] = copy_calls([(feed, OUTPUT) for feed in calls], nodes=nodes)
    plan: Plan = records[0][0]
    notes: list[str] = []
    profiler = FeatureProfiler(
        plan.inputs, names=names, categorical=categorical, limit=limit, note=notes.append, namer=namer
    )
    return [profiler.summarize_inputs(batch_of([record]).inputs) for record in records], notes


def free(name: str, dtype: str = "float") -> dict[str, Node]:
    """An input whose width the model leaves open."""
    return {name: Node(name=name, type=f"tensor({dtype})", shape=["N", "width"])}


def floats(width: int) -> np.ndarray:
    return np.ones((1, width), np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.int64)


def test_columns_have_the_names_that_were_declared_then_numbers() -> None:
    (summary,), notes = profile([{"x": floats(3)}], names=["a", "b"])
    assert ({name: values.tolist() for name, values in summary.features.items()}, summary.samples, notes) == (
        {"a": [1.0], "b": [1.0], "f2": [1.0]}, 1, [],
    )  # fmt: skip


def test_of_several_inputs_columns_have_the_names_of_their_inputs() -> None:
    feed = {"age": floats(1), "rest": floats(2), "image": np.zeros((1, 3, 8, 8), np.float32)}
    (summary,), _ = profile([feed])
    images = [name for name in summary.features if name.startswith("image.")]
    assert len(images) == 8
    assert [name for name in summary.features if name not in images] == ["age", "rest.f0", "rest.f1"]
    (named,), _ = profile([{"a": floats(2), "b": floats(2)}], names=["one", "two", "three"])
    assert list(named.features) == ["one", "two", "three", "b.f1"]


@pytest.mark.parametrize(
    ("limit", "names", "notes"),
    [
        (4, ["a.f0", "a.f1", "b.f0", "b.f1"], []),
        (3, ["a.f0", "a.f1", "b.f0"], ["4 columns, the first 3 are profiled (max_features)"]),
        (1, ["a.f0"], ["4 columns, the first 1 are profiled (max_features)"]),
        (0, [], []),
    ],
)
def test_no_more_features_than_the_limit(limit: int, names: list[str], notes: list[str]) -> None:
    (summary,), noted = profile([{"a": floats(2), "b": floats(2)}], limit=limit)
    assert (list(summary.features), noted) == (names, notes)


def test_images_are_left_out_where_no_input_may_be_profiled() -> None:
    feed = {"image": np.zeros((1, 3, 8, 8), np.float32)}
    assert [bool(profile([feed], limit=limit)[0][0].features) for limit in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    ("feed", "nodes", "names", "count"),
    [
        ({"x": floats(64)}, free("x"), [], 64),
        ({"x": floats(65)}, free("x"), [], 0),
        ({"x": floats(65)}, free("x"), ["first"], 65),
        ({"x": floats(65)}, {}, [], 65),
        ({"x": integers(1, 2)}, free("x", "int64"), [], 0),
        ({"x": integers(1)}, free("x", "int64"), [], 1),
        ({"x": integers(1, 2)}, {}, [], 2),
        ({"input_ids": integers(1, 2)}, {}, [], 0),
        ({"input_ids": integers(1)}, {}, [], 1),
        ({"input_ids": floats(2)}, {}, [], 2),
        ({"token_type_ids": integers(1, 2)}, {}, [], 0),
        ({"inputs": integers(1, 2)}, {}, [], 0),
        ({"my_input": integers(1, 2)}, {}, [], 2),
    ],
)
def test_sequences_are_no_tables(feed: dict[str, Any], nodes: dict[str, Node], names: list[str], count: int) -> None:
    (summary,), _ = profile([feed], nodes=nodes, names=names)
    (name,) = feed
    if count:
        assert len(summary.features) + len(summary.categories) == count
    else:
        assert list(summary.features) == [f"{name}.mean", f"{name}.spread"]


def test_of_a_sequence_that_grows_long_every_so_many_values_are_taken_from_the_first_on() -> None:
    widths = (100, MAX_WIDE_VALUES, MAX_WIDE_VALUES + 2)
    summaries, _ = profile(
        [{"x": np.tile(np.array([0.0, 1.0], np.float32), width // 2)[None]} for width in widths], nodes=free("x")
    )
    assert [{name: values.tolist() for name, values in summary.features.items()} for summary in summaries] == [
        {"x.mean": [0.5], "x.spread": [0.5]},
        {"x.mean": [0.5], "x.spread": [0.5]},
        {"x.mean": [0.0], "x.spread": [0.0]},
    ]


def test_a_wide_input_has_mean_and_spread_of_each_sample() -> None:
    sound = np.stack([np.zeros(16_000), np.tile([1.0, -1.0], 8_000)]).astype(np.float32)[:, None]
    (summary,), notes = profile([{"sound": sound}])
    assert (list(summary.features), summary.samples, notes) == (["sound.mean", "sound.spread"], 2, [])
    np.testing.assert_allclose(summary.features["sound.mean"], [0, 0], atol=0.01)
    np.testing.assert_allclose(summary.features["sound.spread"], [0, 1], atol=0.01)


@pytest.mark.parametrize("data", [None, b"", b"12345", ("text",)])
def test_a_ruined_copy_of_a_wide_input_is_no_sample(data: Any) -> None:
    (record,) = copy_calls([({"x": floats(5_000)}, OUTPUT)])
    notes: list[str] = []
    profiler = FeatureProfiler(record[0].inputs, names=(), categorical=None, limit=100, note=notes.append, namer=KEEP)
    assert profiler.summarize_inputs(batch_of([record]).inputs).samples == 1
    for item in (((1, 5_000), data), ((1, 0), b"1234"), None):
        summary = profiler.summarize_inputs([[item]])
        assert (summary.samples, dict(summary.features)) == (0, {})


def test_raw_bytes_are_a_wide_input_and_a_few_small_integers_are_columns() -> None:
    (summary,), _ = profile([{"x": np.arange(21, dtype=np.uint8)[None]}])
    assert {name: values.tolist() for name, values in summary.features.items()} == {
        "x.mean": [10.0], "x.spread": [pytest.approx(np.arange(21).std())],
    }  # fmt: skip
    (few,), _ = profile([{"x": np.arange(20, dtype=np.uint8)[None]}])
    assert len(few.categories) == 20


@pytest.mark.parametrize(("width", "limit", "count"), [(256, 100, 100), (257, 100, 2), (300, 300, 300), (301, 300, 2)])
def test_tables_without_names_are_wide_beyond_what_may_be_profiled(width: int, limit: int, count: int) -> None:
    (summary,), _ = profile([{"x": floats(width)}], limit=limit)
    assert len(summary.features) == count


def test_a_wide_input_whose_columns_were_named_is_noted() -> None:
    (summary,), notes = profile([{"x": floats(2000)}], names=["a"])
    assert list(summary.features) == ["x.mean", "x.spread"]
    assert notes == ["x is too wide for features of their own: its mean and spread are profiled"]


def test_values_that_are_no_numbers_are_left_out_of_a_wide_sample() -> None:
    rows = np.ones((2, 2000), np.float32)
    rows[0, ::2], rows[1] = np.nan, np.inf
    (summary,), _ = profile([{"x": rows}])
    assert {name: values.tolist() for name, values in summary.features.items()} == {"x.mean": [1.0], "x.spread": [0.0]}
    assert summary.missing == {"x.mean": 1, "x.spread": 1}


def test_sequences_of_several_lengths_are_summarized() -> None:
    calls = [{"input_ids": integers(*tokens)} for tokens in ((1, 3), (2, 2, 5), (4,))]
    summaries, notes = profile(calls, nodes=free("input_ids", "int64"))
    assert [summary.features["input_ids.mean"].tolist() for summary in summaries] == [[2.0], [3.0], [4.0]]
    assert notes == []


def test_wide_inputs_count_against_the_limit() -> None:
    feed = {"table": floats(3), "a": np.ones((1, 2000)), "b": np.ones((1, 2000))}
    assert [len(profile([feed], limit=limit)[0][0].features) for limit in (3, 4, 5, 7)] == [3, 3, 5, 7]


def test_several_images_keep_their_features_apart() -> None:
    feed = {name: np.full((1, 3, 8, 8), value, np.float32) for name, value in (("left", 0.25), ("rgb_right", 0.5))}
    (summary,), _ = profile([feed])
    assert summary.features["left.image.channel_0"].tolist() == [0.25]
    assert summary.features["rgb_right.image.red"].tolist() == [0.5]
    assert len(summary.features) == 16


def test_a_table_whose_width_changes_is_noted_and_left_out() -> None:
    summaries, notes = profile([{"x": floats(2)}, {"x": floats(3)}, {"x": floats(2)}], nodes=free("x"))
    assert [summary.samples for summary in summaries] == [1, 0, 0]
    assert notes == ["x varies in width, as a sequence does, and is not profiled"]


@pytest.mark.parametrize(("value", "is_category"), [(-2, False), (-1, True), (0, True), (31, True), (32, False)])
def test_whole_numbers_of_a_small_range_are_categories(value: int, is_category: bool) -> None:
    (summary,), notes = profile([{"x": integers(value, 5)}])
    assert notes == ([] if is_category else ["f0 is a number"])
    assert summary.categories == ({"f0": {str(value): 1}} if is_category else {}) | {"f1": {"5": 1}}
    assert {name: values.tolist() for name, values in summary.features.items()} == (
        {} if is_category else {"f0": [float(value)]}
    )


@pytest.mark.parametrize(("width", "are_categories"), [(20, True), (21, False)])
def test_wide_tables_of_whole_numbers_are_numbers(width: int, are_categories: bool) -> None:
    (summary,), _ = profile([{"x": np.ones((1, width), np.int64)}])
    assert (len(summary.categories), len(summary.features)) == ((width, 0) if are_categories else (0, width))


def test_declared_categories_are_never_doubted_and_others_never_supposed() -> None:
    (summary,), notes = profile([{"x": integers(99, 5)}], categorical=["f0"])
    assert (summary.categories, list(summary.features), notes) == ({"f0": {"99": 1}}, ["f1"], [])
    (truth,), _ = profile([{"x": np.array([[True, False]])}], categorical=[])
    assert truth.categories == {"f0": {"1": 1}, "f1": {"0": 1}}


def test_missing_values_are_counted_and_left_out() -> None:
    rows = np.array([[np.nan, 1.0, 7.0], [2.0, np.inf, 7.0], [4.0, -np.inf, 7.5]])
    (summary,), _ = profile([{"x": rows}], categorical=["f1", "f2"])
    assert summary.missing == {"f0": 1, "f1": 2}
    assert {name: values.tolist() for name, values in summary.features.items()} == {"f0": [2.0, 4.0]}
    assert summary.categories == {"f1": {"1": 1}, "f2": {"7": 2, "7.5": 1}}
    assert summary.samples == 3


def test_texts_by_column_with_missing_ones() -> None:
    rows = np.array([["a", ""], ["b", None], ["a", float("nan")]], dtype=object)
    (summary,), _ = profile([{"x": rows}])
    assert (summary.categories, summary.missing, summary.samples) == ({"f0": Counter(a=2, b=1)}, {"f1": 3}, 3)
    (flat,), _ = profile([{"x": np.array(["a", "b", "a"], dtype=object)}])
    assert (flat.categories, flat.samples) == ({"f0": Counter(a=2, b=1)}, 3)


def test_nothing_is_planned_before_an_input_shows_its_width() -> None:
    empty = np.zeros((0, 2), np.float32)
    summaries, _ = profile([{"x": empty}, {"x": floats(2)}], nodes=free("x"))
    assert [(list(summary.features), summary.samples) for summary in summaries] == [([], 0), (["f0", "f1"], 1)]


def test_each_image_is_one_sample() -> None:
    image = np.zeros((2, 3, 16, 16), np.float32)
    nodes = {"image": Node(name="image", type="tensor(float)", shape=["N", 3, 16, 16])}
    (summary,), _ = profile([{"image": image}], nodes=nodes)
    assert (summary.samples, summary.features["image.brightness"].size) == (2, 2)
    (nothing,), _ = profile([{"image": image[:0]}], nodes=nodes)
    assert (nothing.samples, {name: values.size for name, values in nothing.features.items()}) == (0, {})


def test_rows_of_texts_without_columns_are_no_samples() -> None:
    nodes = {"x": Node(name="x", type="tensor(string)", shape=["N", "width"])}
    feeds: list[dict[str, Any]] = [{"x": np.full((3, width), "a", dtype=object)} for width in (2, 0)]
    summaries, _ = profile(feeds, nodes=nodes)
    assert [summary.samples for summary in summaries] == [3, 0]


def test_samples_are_those_of_the_input_with_the_most() -> None:
    (summary,), _ = profile([{"a": np.ones((2, 1)), "b": np.ones((5, 1))}])
    assert summary.samples == 5
