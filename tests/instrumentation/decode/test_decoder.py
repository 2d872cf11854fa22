"""Reading in any pieces gives what plain numpy gives on the true arrays, whatever the outputs and inputs are."""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otel_mlmon.instrumentation.decode.decoder import MAX_DECODERS, DecoderCache, TensorDecoder
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT
from otel_mlmon.instrumentation.decode.output_kind import MAX_CLASS
from otel_mlmon.instrumentation.runtime.call import CallTuple, Plan
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.types import OutputKind
from otel_mlmon.vocabulary import TextBuckets
from tests.support.calls import Node, batch_of, confidences_of, copy_calls, labels_of, summarize

CUTS = st.lists(st.integers(0, 100), max_size=3)
ODD = [np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, 1.0, 0.5]
DTYPES = st.sampled_from(["float16", "float32", "float64"])


@st.composite
def tables(draw: st.DrawFn, width: int, *, low: float, high: float) -> list[np.ndarray]:
    """Outputs or inputs of some calls, of a float type: batches of 0 to 5 rows, the first not empty."""
    dtype = draw(DTYPES)
    numbers = st.floats(low, high)
    elements = st.one_of(numbers, st.sampled_from(ODD))
    sizes = [draw(st.integers(1, 5)), *draw(st.lists(st.integers(0, 5), max_size=5))]
    return [draw(hnp.arrays(np.float64, (size, width), elements=elements)).astype(dtype) for size in sizes]


def as_calls(batches: list[np.ndarray]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [({}, {"out": batch}) for batch in batches]


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum())


def oracle(kind: OutputKind, row: np.ndarray, names: list[str]) -> tuple[list[str], list[float], list[float]]:
    """Labels, confidence and value of one row of float64."""
    if kind == "regression":
        return [], [], [float(row[0])] if np.isfinite(row[0]) else []
    if not np.isfinite(row).all():
        return [], [], []
    if kind == "embedding":
        return [], [], [math.hypot(*row)]
    if kind == "multi_label":
        clipped = np.clip(row, 0, 1)
        certainty = float(np.mean([max(p, 1 - p) for p in clipped]))
        return [name for name, p in zip(names, row, strict=True) if p > 0.5], [certainty], []
    if kind == "sigmoid":
        p = float(row[0])
        return [names[int(p >= 0.5)]], [min(max(p, 1 - p), 1.0)], []
    shares = softmax(row) if kind == "logits" else row
    return [names[int(row.argmax())]], [float(np.clip(shares[row.argmax()], 0, 1))], []


CASES: dict[OutputKind, tuple[int, float, float]] = {
    "probabilities": (3, 0.0, 1.0),
    "logits": (4, -50.0, 50.0),
    "sigmoid": (1, 0.0, 1.0),
    "multi_label": (3, 0.0, 1.0),
    "regression": (1, -6e4, 6e4),
    "embedding": (5, -200.0, 200.0),
}


@pytest.mark.parametrize("kind", CASES)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), cuts=CUTS)
def test_any_pieces_add_up_to_what_an_oracle_finds(kind: OutputKind, data: st.DataObject, cuts: list[int]) -> None:
    width, low, high = CASES[kind]
    batches = data.draw(tables(width, low=low, high=high))
    names = [f"c{index}" for index in range(2 if kind == "sigmoid" else width)]
    snapshot = summarize(copy_calls(as_calls(batches)), ModelOptions(output_kind=kind, labels=names), cuts=cuts)
    labels: Counter[str] = Counter()
    confidences: list[float] = []
    values: list[float] = []
    for row in np.concatenate([batch.astype(np.float64) for batch in batches]):
        said, sure, numbers = oracle(kind, row, names)
        labels.update(said)
        confidences += sure
        values += numbers
    assert labels_of(snapshot) == labels
    np.testing.assert_allclose(np.sort(confidences_of(snapshot)), sorted(confidences), rtol=1e-12)
    got = [number for numbers in snapshot.values.values() for number in numbers.tolist()]
    np.testing.assert_allclose(sorted(got), sorted(values), rtol=1e-12)
    assert snapshot.batch_sizes.tolist() == [len(batch) for batch in batches if len(batch)]


INTEGERS = st.sampled_from(["int8", "int16", "int32", "int64", "uint8", "uint64"])


@settings(deadline=None, max_examples=60)
@given(st.data(), INTEGERS, CUTS, st.booleans())
def test_labels_that_are_numbers(data: st.DataObject, dtype: str, cuts: list[int], flat: bool) -> None:
    info = np.iinfo(dtype)
    # A larger number of 8 bits may be one of a grid.
    extremes = [int(info.min), int(info.max)] if info.bits > 8 else [MAX_CLASS]
    elements = st.one_of(st.integers(max(0, info.min), 4), st.sampled_from(extremes))
    shape = st.integers(0, 5).map(lambda size: (size,) if flat else (size, 1))
    batches = data.draw(st.lists(hnp.arrays(dtype, shape, elements=elements), min_size=1, max_size=5))
    snapshot = summarize(copy_calls(as_calls(batches)), ModelOptions(labels=["zero", "one"], text="keep"), cuts=cuts)
    rows = [value for batch in batches for value in batch.ravel().tolist()]
    names = {0: "zero", 1: "one"}
    assert labels_of(snapshot) == Counter(names.get(value, str(value)) for value in rows)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from(["ant", "bee", "côté"]), max_size=5), min_size=1, max_size=5), CUTS)
def test_labels_that_are_strings_of_the_models_own(batches: list[list[str]], cuts: list[int]) -> None:
    arrays = [np.array(batch, dtype=object) for batch in batches]
    said = ModelOptions(labels=["ant", "bee", "côté"])
    snapshot = summarize(copy_calls(as_calls(arrays)), said, cuts=cuts)
    assert labels_of(snapshot) == Counter(label for batch in batches for label in batch)


def test_a_string_output_that_is_no_known_class_leaves_as_a_bucket_however_often_it_comes() -> None:
    words = ["Ada Lovelace", *["cat"] * 600, "x" * 300]
    records = copy_calls(as_calls([np.array([word], dtype=object) for word in words]))
    snapshot = summarize(records, ModelOptions(text_key="k"), cuts=range(1, 20))
    buckets = TextBuckets(key="k", model="")
    assert labels_of(snapshot) == Counter(buckets.assign_bucket(word[:MAX_TEXT]) for word in words)


def test_a_customers_number_leaves_as_a_bucket() -> None:
    numbers = np.array([7, 10_000, 10_001, 48_151_623], dtype=np.int64)
    snapshot = summarize(copy_calls(as_calls([numbers])), ModelOptions(text_key="k"))
    buckets = TextBuckets(key="k", model="")
    assert labels_of(snapshot) == Counter(
        ["7", "10000", buckets.assign_bucket("10001"), buckets.assign_bucket("48151623")]
    )


@settings(deadline=None, max_examples=60)
@given(tables(4, low=-60_000, high=60_000), CUTS)
def test_numbers_as_inputs(batches: list[np.ndarray], cuts: list[int]) -> None:
    calls = [({"x": batch}, {"out": np.zeros((len(batch), 1), np.float32)}) for batch in batches]
    snapshot = summarize(copy_calls(calls), ModelOptions(output_kind="regression", features=["a", "b"]), cuts=cuts)
    rows = np.concatenate([batch.astype(np.float64) for batch in batches])
    finite = np.isfinite(rows)
    for index, name in enumerate(["a", "b", "f2", "f3"]):
        assert sorted(snapshot.inputs.features[name].tolist()) == sorted(rows[finite[:, index], index].tolist())
    missing = {name: int((~finite[:, at]).sum()) for at, name in enumerate(["a", "b", "f2", "f3"])}
    assert snapshot.inputs.missing == {name: count for name, count in missing.items() if count}
    assert snapshot.inputs.samples == len(rows)


@settings(deadline=None, max_examples=60)
@given(st.data(), INTEGERS, CUTS)
def test_whole_numbers_of_few_values_as_inputs(data: st.DataObject, dtype: str, cuts: list[int]) -> None:
    shape = st.integers(1, 5).map(lambda size: (size, 2))
    elements = st.integers(0, 31)
    batches = data.draw(st.lists(hnp.arrays(dtype, shape, elements=elements), min_size=1, max_size=5))
    calls = [({"x": batch}, {"out": np.zeros((len(batch), 1), np.float32)}) for batch in batches]
    snapshot = summarize(copy_calls(calls), ModelOptions(output_kind="none"), cuts=cuts)
    rows = np.concatenate(batches)
    assert snapshot.inputs.categories == {f"f{at}": Counter(map(str, rows[:, at].tolist())) for at in range(2)}
    assert (snapshot.inputs.features, snapshot.inputs.samples) == ({}, len(rows))


TEXTS = st.sampled_from(["red", "blue", "", None, float("nan"), 7])


@settings(deadline=None, max_examples=60)
@given(st.data(), CUTS)
def test_strings_as_inputs(data: st.DataObject, cuts: list[int]) -> None:
    shape = st.integers(1, 5).map(lambda size: (size, 2))
    batches = data.draw(st.lists(hnp.arrays(object, shape, elements=TEXTS), min_size=1, max_size=5))
    calls = [({"x": batch}, {"out": np.zeros((len(batch), 1), np.float32)}) for batch in batches]
    options = ModelOptions(output_kind="none", categories={"f0": ["red"]}, keep_text=["f1"], text_key="k")
    snapshot = summarize(copy_calls(calls), options, cuts=cuts)
    rows = np.concatenate(batches)
    buckets = TextBuckets(key="k", model="")
    for at in range(2):
        present = [str(value) for value in rows[:, at] if value is not None and value == value and value != ""]
        categories = snapshot.inputs.categories[f"f{at}"] if present else {}
        is_named = [at == 1 or text == "red" for text in present]
        names = [text if named else buckets.assign_bucket(text) for text, named in zip(present, is_named, strict=True)]
        assert categories == Counter(names)
        assert snapshot.inputs.missing.get(f"f{at}", 0) == len(rows) - len(present)


def test_each_of_several_heads_has_its_own_labels() -> None:
    colour, size = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    records = copy_calls([({}, {"colour": colour, "size": size, "num_items": np.array([[1], [2]])})])
    snapshot = summarize(records, ModelOptions())
    assert snapshot.labels == {"colour": {"0": 1, "1": 1}, "size": {"0": 1, "2": 1}}
    confidences = {name: values.tolist() for name, values in snapshot.confidences.items()}
    assert confidences == {"colour": [0.9, 0.8], "size": [0.5, 0.8]}
    assert (snapshot.uncounted, dict(snapshot.values)) == ({"colour": 0, "size": 0}, {})


def test_logits_beside_their_probabilities_are_one_prediction() -> None:
    logits = np.array([[1.0, 3.0], [2.0, 0.0]])
    shares = np.array([softmax(row) for row in logits])
    snapshot = summarize(copy_calls([({}, {"logits": logits, "probs": shares})]), ModelOptions())
    assert (labels_of(snapshot), dict(snapshot.values)) == ({"1": 1, "0": 1}, {})


def test_labels_come_from_their_own_output_wherever_it_stands() -> None:
    shares, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([70, 80])
    snapshot = summarize(copy_calls([({}, {"probabilities": shares, "label": labels})]), ModelOptions())
    assert (labels_of(snapshot), confidences_of(snapshot).tolist()) == ({"70": 1, "80": 1}, [0.9, 0.8])


def test_several_targets_are_told_apart() -> None:
    rows = np.array([[1.0, 2.0], [3.0, np.nan]])
    records = copy_calls([({}, {"y": rows})])
    snapshot = summarize(records, ModelOptions(output_kind="regression"))
    assert {name: values.tolist() for name, values in snapshot.values.items()} == {"y.0": [1.0, 3.0], "y.1": [2.0]}
    named = summarize(records, ModelOptions(output_kind={"y": "regression"}, labels=["price", "area"]))
    assert list(named.values) == ["y.price", "y.area"]


@pytest.mark.parametrize(
    ("labels", "counts"),
    [(["a"], {"a": 1, "2": 1}), (["a", "b", "c", "d"], {"a": 1, "c": 1}), (["a", "b", "a"], {"a": 2})],
)
def test_labels_too_few_too_many_and_twice(labels: list[str], counts: dict[str, int]) -> None:
    rows = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    findings = ModelFindings()
    snapshot = summarize(copy_calls([({}, {"p": rows})]), ModelOptions(labels=labels), findings=findings)
    assert labels_of(snapshot) == counts
    said = {} if len(labels) == 3 else {"labels": f"{len(labels)} given for 3 classes"}
    assert findings.list_findings() == {"m": {"output p": "probabilities", **said}}


@pytest.mark.parametrize(
    "outputs",
    [
        {"boxes": np.ones((3, 4)), "labels": np.array([1, 2, 3]), "scores": np.array([0.9, 0.8, 0.7])},
        {"boxes": np.ones((1, 3, 4)), "scores": np.array([[0.9, 0.8, 0.7]])},
    ],
)
def test_what_a_detector_finds_is_not_counted_as_predictions(outputs: dict[str, np.ndarray]) -> None:
    findings = ModelFindings()
    snapshot = summarize(copy_calls([({}, outputs)]), ModelOptions(), findings=findings)
    assert (labels_of(snapshot), confidences_of(snapshot).size, dict(snapshot.values)) == ({}, 0, {})
    assert set(findings.list_findings()["m"].values()) == {"unknown kind, timed only (set ModelOptions.output_kind)"}


@pytest.mark.parametrize("value", [np.zeros((2, 3, 4, 5)), np.float32(3), np.zeros((1, 7, 9))])
def test_what_cannot_be_read_is_timed_and_that_is_said_once(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    records = copy_calls([({"x": np.zeros((2, 3))}, {"out": value})] * 3)
    findings = ModelFindings()
    with caplog.at_level(logging.INFO, logger="otel_mlmon"):
        for _ in range(3):
            snapshot = summarize(records, ModelOptions(), cuts=[1, 2], findings=findings)
    assert (snapshot.durations_s[""].size, labels_of(snapshot), dict(snapshot.values)) == (3, {}, {})
    assert [record.getMessage() for record in caplog.records] == [
        f"Model m, {subject}: unknown kind, timed only (set ModelOptions.output_kind)."
        for subject in findings.list_findings()["m"]
    ]


def test_a_sequence_of_free_width_is_no_table() -> None:
    def nodes(dtype: str, name: str) -> dict[str, Node]:
        return {name: Node(name=name, type=f"tensor({dtype})", shape=["N", "length"])}

    out = {"out": np.zeros((1, 1), np.float32)}
    sound = copy_calls([({"x": np.zeros((1, 512), np.float32)}, out)], nodes=nodes("float", "x"))
    tokens = copy_calls([({"input_ids": np.zeros((1, 7), np.int64)}, out)], nodes=nodes("int64", "input_ids"))
    table = copy_calls([({"x": np.zeros((1, 3), np.float32)}, out)], nodes=nodes("float", "x"))
    assert [sorted(summarize(records, ModelOptions()).inputs.features) for records in (sound, tokens, table)] == [
        ["x.mean", "x.spread"],
        ["input_ids.mean", "input_ids.spread"],
        ["f0", "f1", "f2"],
    ]


def test_a_table_whose_width_changes_is_a_sequence_after_all() -> None:
    nodes = {"x": Node(name="x", type="tensor(float)", shape=["N", "length"])}
    calls = [({"x": np.ones((1, width), np.float32)}, {"out": np.zeros((1, 1))}) for width in (3, 3, 5, 3)]
    findings = ModelFindings()
    snapshot = summarize(copy_calls(calls, nodes=nodes), ModelOptions(), cuts=[1, 2, 3], findings=findings)
    assert snapshot.inputs.features["f0"].size == 2
    assert findings.list_findings()["m"]["inputs"] == "x varies in width, as a sequence does, and is not profiled"


def test_a_whole_number_that_is_no_category_is_one_feature_from_then_on() -> None:
    calls = [({"age": np.array([[age]])}, {"out": np.zeros((1, 1))}) for age in (30, 45, 20)]
    findings = ModelFindings()
    snapshot = summarize(copy_calls(calls), ModelOptions(), cuts=[1, 2], findings=findings)
    assert (snapshot.inputs.categories["f0"], snapshot.inputs.features["f0"].tolist()) == ({"30": 1}, [45.0, 20.0])
    assert findings.list_findings()["m"]["inputs"] == "f0 is a number"
    said = summarize(copy_calls(calls), ModelOptions(categorical=[]), cuts=[1, 2])
    assert (said.inputs.categories, said.inputs.features["f0"].tolist()) == ({}, [30.0, 45.0, 20.0])


def test_categories_that_round_to_the_same_word_are_one() -> None:
    values = np.array([[1.0000001], [1.0], [-0.0], [0.0], [123456789.0]])
    snapshot = summarize(
        copy_calls([({"x": values}, {"out": values})]),
        ModelOptions(categorical=["f0"], output_kind="none", text="keep"),
    )
    assert snapshot.inputs.categories["f0"] == {"1": 2, "0": 2, "123456789": 1}


def test_inputs_that_say_nothing_are_passed_over() -> None:
    feed = {
        "scalar": np.array(3.0),
        "volume": np.zeros((1, 2, 3), np.float32),
        "empty": np.zeros((1, 0), np.float32),
        "flag": np.array([True]),
        "row": np.array([1.5], np.float16),
    }
    snapshot = summarize(copy_calls([(feed, {"out": np.zeros((1, 1))})]), ModelOptions())
    assert {name: values.tolist() for name, values in snapshot.inputs.features.items()} == {
        "row": [1.5], "volume.mean": [0.0], "volume.spread": [0.0],
    }  # fmt: skip
    assert snapshot.inputs.categories == {"flag": {"1": 1}}


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_extremes_of_a_type_are_numbers(dtype: str) -> None:
    info = np.finfo(dtype)
    values = np.array([[info.max], [info.min], [info.tiny / 2], [-0.0]], dtype=dtype)
    snapshot = summarize(copy_calls([({"x": values}, {"y": values})]), ModelOptions(output_kind="regression"))
    assert snapshot.values[""].tolist() == snapshot.inputs.features["f0"].tolist() == values[:, 0].tolist()


def test_a_row_too_large_to_copy_is_sampled_and_counts() -> None:
    wide = np.ones((2, 30_000), np.float32)
    snapshot = summarize(copy_calls([({"x": wide}, {"out": wide})]), ModelOptions())
    assert (snapshot.batch_sizes.tolist(), snapshot.inputs.samples) == ([2.0], 2)
    assert {name: values.tolist() for name, values in snapshot.inputs.features.items()} == {
        "x.mean": [1.0, 1.0], "x.spread": [0.0, 0.0],
    }  # fmt: skip


def test_class_names_of_the_model_that_are_not_as_many_as_the_classes_name_none() -> None:
    rows = np.array([[0.2, 0.8]])
    for names, label in (("a,b", "b"), ("a,b,c", "1")):
        snapshot = summarize(copy_calls([({}, {"p": rows})], metadata={"names": names}), ModelOptions())
        assert labels_of(snapshot) == {label: 1}


def test_a_row_of_strings_that_was_cut_is_not_taken_for_others() -> None:
    row = np.array([["first", *["other"] * 299]], dtype=object)
    calls = [({"x": row}, {"out": np.zeros((1, 1), np.float32)})] * 3
    snapshot = summarize(copy_calls(calls), ModelOptions(output_kind="none"))
    assert (snapshot.inputs.categories, snapshot.inputs.samples) == ({}, 0)


def test_a_single_tensor_may_come_with_a_tuple_around_it() -> None:
    rows = np.array([[0.2, 0.8]], np.float32)
    records = copy_calls([({"x": rows}, {"p": rows})] * 2)
    around: list[Any] = [records[0], *((*record[:4], (record[4],), (record[5],), None) for record in records[1:])]
    snapshot, same = summarize(records, ModelOptions()), summarize(around, ModelOptions())
    assert labels_of(same) == labels_of(snapshot) == {"1": 2}
    assert (same.inputs.samples, same.inputs.features["f1"].tolist()) == (2, snapshot.inputs.features["f1"].tolist())


def decoder_of(
    record: CallTuple, options: ModelOptions | None = None, findings: ModelFindings | None = None
) -> tuple[TensorDecoder, ModelFindings]:
    findings = findings or ModelFindings()
    return TensorDecoder(
        record[0], options=lambda _: options or ModelOptions(), max_features=9, findings=findings
    ), findings


def predict(outputs: dict[str, Any], options: ModelOptions, **described: Any) -> tuple[dict[str, int], list[float]]:
    snapshot = summarize(copy_calls([({}, outputs)], **described), options)
    return dict(labels_of(snapshot)), confidences_of(snapshot).tolist()


HALF = np.array([[0.25, 0.75]])


def test_a_kind_declared_for_all_is_that_of_the_first_output_of_scores() -> None:
    outputs = {"count": np.array([[7]]), "first": np.array([[3.0, 1.0]]), "second": np.array([[3.0, 1.0]])}
    snapshot = summarize(copy_calls([({}, outputs)]), ModelOptions(output_kind="regression"))
    assert {name: values.tolist() for name, values in snapshot.values.items()} == {
        "count": [7.0],
        "first.0": [3.0],
        "first.1": [1.0],
    }
    assert labels_of(snapshot) == {}
    whole = summarize(
        copy_calls([({}, {"a": np.array([[7]]), "b": np.array([[8]])})]), ModelOptions(output_kind="regression")
    )
    assert ({name: values.tolist() for name, values in whole.values.items()}, whole.labels) == (
        {"a": [7.0]},
        {"b": {"8": 1}},
    )


def test_a_kind_declared_by_name_is_that_of_this_output_only() -> None:
    outputs = {"logits": np.array([[3.0, 1.0]]), "second": np.array([[3.0, 1.0]])}
    snapshot = summarize(copy_calls([({}, outputs)]), ModelOptions(output_kind={"second": "regression"}))
    assert (snapshot.labels, sorted(snapshot.values)) == ({"logits": {"0": 1}}, ["second.0", "second.1"])
    assert predict({"p": HALF}, ModelOptions(output_kind={})) == ({"1": 1}, [0.75])


def test_a_detector_may_be_declared_to_be_none() -> None:
    outputs = {"boxes": np.ones((3, 4)), "scores": np.array([[0.25, 0.75]])}
    assert predict(outputs, ModelOptions()) == ({}, [])
    assert predict(outputs, ModelOptions(output_kind={"scores": "probabilities"})) == ({"1": 1}, [0.75])


def test_class_names_of_another_number_are_fitted_where_there_is_one_output_of_scores() -> None:
    options = ModelOptions(labels=["a", "b", "c"])
    assert predict({"p": HALF}, options)[0] == {"b": 1}
    two = {"p": HALF, "other": np.array([[0.1, 0.2, 0.7]])}
    findings = ModelFindings()
    snapshot = summarize(copy_calls([({}, two)]), options, findings=findings)
    expected = ({"p": {"1": 1}, "other": {"c": 1}}, False)
    assert (snapshot.labels, "labels" in findings.list_findings()["m"]) == expected
    assert predict({"p": np.array([[0.7]])}, ModelOptions(labels=["no", "yes"]))[0] == {"yes": 1}


def test_texts_beside_labels_and_texts_declared_to_be_none() -> None:
    words = np.array(["cat"], dtype=object)
    both = {"word": words, "label": np.array([3])}
    snapshot = summarize(copy_calls([({}, both)]), ModelOptions(labels=["cat"]))
    assert snapshot.labels == {"word": {"cat": 1}, "label": {"3": 1}}
    only = summarize(copy_calls([({}, both)]), ModelOptions(labels=["cat"], output_kind={"label": "none"}))
    assert only.labels == {"": {"cat": 1}}
    assert predict({"word": words}, ModelOptions(labels=["cat"], output_kind="none"))[0] == {}


def test_findings_about_outputs() -> None:
    rows = [np.array([[0.0, 0.0]]), np.array([[0.2, 0.8]]), np.array([[3.0, -1.0]]), np.array([[3.0, -1.0, 0.5]])]
    records = copy_calls(
        [({}, {"y": row}) for row in rows], nodes={"y": Node(name="y", type="tensor(double)", shape=["N", "M"])}
    )
    decoder, findings = decoder_of(records[0])
    texts = []
    for record in records:
        decoder.decode_batch(batch_of([record]))
        texts.append(findings.list_findings()["m"]["output y"])
    assert texts == [
        "waiting for rows that show its kind",
        "probabilities",
        "rows contradict probabilities, timed only from here on (set ModelOptions.output_kind)",
        "rows contradict probabilities, timed only from here on (set ModelOptions.output_kind)",
    ]


def test_only_revisions_and_models_without_any_kind_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="otel_mlmon"):
        summarize(copy_calls([({}, {"mask": np.ones((1, 2)), "p": HALF})]), ModelOptions(), findings=ModelFindings())
        assert caplog.records == []
        summarize(copy_calls([({}, {"mask": np.ones((1, 2)), "hn": HALF})]), ModelOptions(), findings=ModelFindings())
    assert [record.getMessage() for record in caplog.records] == [
        "Model m, output hn: unknown kind, timed only (set ModelOptions.output_kind)."
    ]


def test_a_model_is_not_called_timed_only_by_calls_that_failed() -> None:
    record = copy_calls([({}, {})])[0]
    failed: Any = (*record[:6], "ValueError")
    decoder, findings = decoder_of(record)
    decoder.decode_batch(batch_of([failed]))
    assert findings.list_findings() == {}
    decoder.decode_batch(batch_of([failed, record]))
    assert findings.list_findings() == {"m": {"outputs": "unknown kind, timed only (set ModelOptions.output_kind)"}}


@pytest.mark.parametrize(
    ("feed", "outputs", "size"),
    [
        ({"x": np.ones((3, 2))}, {"scalar": np.float32(1)}, 3),
        ({"word": np.array(["a", "b"], dtype=object)}, {}, 2),
        ({"scalar": np.float64(1), "x": np.ones((3, 2))}, {}, 3),
        ({"x": np.ones((3, 2))}, {"y": np.ones((2, 2))}, 3),
        ({"x": np.ones((4, 2))}, {"word": np.array(["a", "b"], dtype=object)}, 4),
        ({"scalar": np.float64(1)}, {}, 0),
        ({}, {}, 0),
    ],
)
def test_batch_sizes_are_those_of_outputs_else_of_inputs(
    feed: dict[str, Any], outputs: dict[str, Any], size: int
) -> None:
    records = copy_calls([(feed, outputs)])
    assert decoder_of(records[0])[0].decode_batch(batch_of(records)).batch_sizes.tolist() == [size]


def test_durations_are_never_negative() -> None:
    record = copy_calls([({}, {"p": HALF})])[0]
    calls: list[Any] = [(record[0], 5, end, *record[3:]) for end in (5, 4, 9)]
    assert decoder_of(record)[0].decode_batch(batch_of(calls)).duration_ns.tolist() == [0, 0, 4]


def test_decoders_are_made_once_and_the_oldest_are_forgotten() -> None:
    records = [copy_calls([({}, {"p": HALF})])[0] for _ in range(MAX_DECODERS + 1)]
    made: list[Plan] = []
    announced: list[Plan] = []

    def make(plan: Plan) -> TensorDecoder:
        made.append(plan)
        return TensorDecoder(plan, options=lambda _: ModelOptions(), max_features=1)

    decoders = DecoderCache(make, on_new=announced.append)
    for record in [*records[:MAX_DECODERS], records[0]]:
        decoders.decode_batch(batch_of([record]))
    assert made == announced == [record[0] for record in records[:MAX_DECODERS]]
    for record in (records[MAX_DECODERS], records[1], records[0]):
        decoders.decode_batch(batch_of([record]))
    assert made[MAX_DECODERS:] == [records[MAX_DECODERS][0], records[0][0]]
