"""What real sessions give, from the call to the metrics: heads, boxes, tokens, rows that are no samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from otel_mlmon import ModelOptions
from otel_mlmon.instrumentation.decode.outputs import TIMED_ONLY
from otel_mlmon.testing import Captured, capture
from tests.support.calls import copy_calls, summarize

RNG = np.random.default_rng(11)
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL, "str": TensorProto.STRING}
Outputs = Mapping[str, tuple[str, list[Any]]]


def session_of(outputs: Outputs, *, has_batch: bool = True) -> ort.InferenceSession:
    """Each output is an input given back; beside them, one input of samples that nothing is made of."""
    nodes = [helper.make_node("Identity", [f"in_{name}"], [name]) for name in outputs]
    infos = {name: (TYPES[kind], shape) for name, (kind, shape) in outputs.items()}
    inputs = [helper.make_tensor_value_info(f"in_{name}", *info) for name, info in infos.items()]
    if has_batch:
        inputs.insert(0, helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["N", 5]))
    results = [helper.make_tensor_value_info(name, *info) for name, info in infos.items()]
    graph = helper.make_graph(nodes, "heads", inputs, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString())


def run(session: ort.InferenceSession, samples: int, **outputs: Any) -> None:
    feed = {f"in_{name}": np.asarray(value) for name, value in outputs.items()}
    if any(node.name == "samples" for node in session.get_inputs()):
        feed["samples"] = np.zeros((samples, 5), np.float32)
    session.run(None, feed)


def points(captured: Captured, name: str, *keys: str) -> dict[Any, Any]:
    """Values of a counter, or counts of a histogram, by attributes; None for one that is not there."""
    metric = captured.metrics().get(name)
    found = {}
    points_of: list[Any] = list(metric.data.data_points) if metric else []
    for point in points_of:
        attributes = tuple((point.attributes or {}).get(key) for key in keys)
        found[attributes if len(keys) > 1 else attributes[0]] = getattr(point, "value", None) or point.count
    return found


def rows(*classes: int, width: int = 3) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[list(classes)] * 0.5 + np.float32(0.5 / width)


def options(**kinds: Any) -> dict[str, ModelOptions]:
    return {"heads": ModelOptions(output_kind=kinds)}


LABEL, OUTPUT = "ml.prediction.label", "ml.output.name"


def test_several_heads_have_names_on_metrics_spans_and_events() -> None:
    session = session_of({"color": ("float32", ["N", 3]), "shape": ("float32", ["N", 4]), "age": ("float32", ["N", 1])})
    with capture(models=options(color="probabilities", shape="probabilities", age="regression")) as captured:
        run(session, 2, color=rows(0, 2), shape=rows(3, 3, width=4), age=np.ones((2, 1), np.float32))
        run(session, 1, color=rows(1), shape=rows(0, width=4), age=np.ones((1, 1), np.float32))
        captured.flush()
        assert points(captured, "ml.predictions", OUTPUT, LABEL) == {
            ("color", "0"): 1, ("color", "1"): 1, ("color", "2"): 1, ("shape", "3"): 2, ("shape", "0"): 1,
        }  # fmt: skip
        assert points(captured, "ml.prediction.confidence", OUTPUT) == {"color": 3, "shape": 3}
        assert points(captured, "ml.prediction.value", OUTPUT) == {"age": 3}
        assert points(captured, "ml.prediction.uncounted", OUTPUT) == {}
        attributes = [dict(span.attributes or {}) for span in captured.spans]
        assert [(found.get(OUTPUT), found.get(LABEL)) for found in attributes] == [("color", None), ("color", "1")]
        assert captured.handle.status().failures == {}


def test_one_head_has_no_name() -> None:
    session = session_of({"label": ("int64", ["N"]), "probabilities": ("float32", ["N", 3])})
    with capture() as captured:
        run(session, 2, label=[7, 9], probabilities=rows(0, 2))
        captured.flush()
        assert points(captured, "ml.predictions", OUTPUT, LABEL) == {(None, "7"): 1, (None, "9"): 1}
        assert points(captured, "ml.prediction.confidence", OUTPUT) == {None: 2}


@pytest.mark.parametrize(
    ("other", "value", "counted"),
    [
        ("float32", [[3.0], [4.0]], {"y": 2, "other": 2}),
        ("int64", [[3], [4]], {}),
        ("str", [["ant"], ["bee"]], {}),
    ],
)
def test_a_number_is_a_value_but_beside_a_label(other: str, value: list[Any], counted: dict[str, int]) -> None:
    session = session_of({"y": ("float32", ["N", 1]), "other": (other, ["N", 1])})
    with capture() as captured:
        run(
            session,
            2,
            y=np.array([[1.5], [2.5]], np.float32),
            other=np.array(value, object if other == "str" else other),
        )
        captured.flush()
        assert points(captured, "ml.prediction.value", OUTPUT) == counted
        assert sum(points(captured, "ml.predictions", LABEL).values()) == (0 if counted else 2)


def test_the_best_scores_and_their_classes_are_one_prediction() -> None:
    session = session_of({"values": ("float32", ["N", 2]), "indices": ("int64", ["N", 2])})
    best = np.array([[0.7, 0.2], [0.5, 0.4]], np.float32)
    with capture(models={"heads": ModelOptions(output_kind="top_k", labels=["ant", "bee", "cow"])}) as captured:
        run(session, 2, values=best, indices=[[2, 0], [1, 2]])
        captured.flush()
        assert points(captured, "ml.predictions", LABEL) == {"cow": 1, "bee": 1}
        (confidence,) = captured.metrics()["ml.prediction.confidence"].data.data_points
        assert (confidence.count, confidence.sum) == (2, pytest.approx(1.2))  # type: ignore[union-attr]


def test_best_scores_that_are_no_probabilities_are_no_confidences() -> None:
    session = session_of({"values": ("float32", ["N", 2]), "indices": ("int64", ["N", 2])})
    with capture(models=options(values="top_k")) as captured:
        run(session, 1, values=np.array([[0.9, 0.8]], np.float32), indices=[[2, 0]])  # similarities
        run(session, 1, values=np.array([[0.6, 0.3]], np.float32), indices=[[1, 0]])
        captured.flush()
        assert points(captured, "ml.predictions", LABEL) == {"2": 1, "1": 1}
        assert points(captured, "ml.prediction.confidence", OUTPUT) == {}


def test_a_detector_counts_boxes_and_scores_never_predictions() -> None:
    session = session_of({"boxes": ("float32", ["n", 4]), "scores": ("float32", ["n"]), "labels": ("int64", ["n"])})
    kinds = dict.fromkeys(("boxes", "scores", "labels"), "detection")
    with capture(models=options(**kinds)) as captured:
        for count in (3, 0, 1):
            scores = np.linspace(0.3, 0.9, count, dtype=np.float32)
            run(session, 1, boxes=np.ones((count, 4), np.float32), scores=scores, labels=np.ones(count, np.int64))
        captured.flush()
        (counts,) = captured.metrics()["ml.output.items"].data.data_points
        assert (dict(counts.attributes or {})[OUTPUT], counts.count, counts.sum, counts.min) == ("scores", 3, 4, 0)  # type: ignore[union-attr]
        assert points(captured, "ml.output.item.confidence", OUTPUT) == {"scores": 4}
        batch = captured.metrics()["ml.inference.batch.size"].data.data_points[0]
        assert (batch.count, batch.max) == (3, 1)  # type: ignore[union-attr]
        assert {"ml.predictions", "ml.prediction.confidence", "ml.prediction.value"}.isdisjoint(captured.metrics())


def test_tokens_of_three_axes_are_counted_and_scored() -> None:
    session = session_of({"tokens": ("float32", ["N", "T", 7])})
    with capture(models=options(tokens="sequence")) as captured:
        run(session, 2, tokens=np.stack([rows(*[1] * 9, width=7)] * 2))
        captured.flush()
        assert points(captured, "ml.output.items", OUTPUT) == {"tokens": 1}
        (counts,) = captured.metrics()["ml.output.items"].data.data_points
        assert counts.sum == 18  # type: ignore[union-attr]
        assert points(captured, "ml.output.item.confidence", OUTPUT) == {"tokens": 18}
        assert "ml.predictions" not in captured.metrics()


@pytest.mark.parametrize("shift", [-1, 1, 24])
def test_rows_that_are_not_one_a_sample_are_no_predictions(shift: int) -> None:
    outputs: Outputs = {
        "logits": ("float32", ["n", 3]),
        "price": ("float32", ["n", 1]),
        "kind": ("int64", ["n"]),
        "word": ("str", ["n"]),
    }
    session = session_of(outputs)
    with capture() as captured:
        for samples in (4, 5):
            count = samples + shift
            words = np.array(["a"] * count, dtype=object)
            numbers = RNG.normal(size=(count, 3)).astype(np.float32) * 9
            run(session, samples, logits=numbers, price=numbers[:, :1], kind=[1] * count, word=words)
        captured.flush()
        assert {"ml.predictions", "ml.prediction.confidence", "ml.prediction.value"}.isdisjoint(captured.metrics())
        assert points(captured, "ml.inference.duration", OUTPUT) == {None: 2}
        word = "not one row a sample, timed only (set ModelOptions.output_kind)"
        findings = captured.handle.status().findings["heads"]
        assert {findings[f"output {name}"] for name in ("logits", "kind", "word")} == {word}


def test_rows_of_probabilities_that_are_no_samples_are_a_sequence() -> None:
    session = session_of({"frames": ("float32", ["T", 6])})
    with capture() as captured:
        for count in (9, 8):
            run(session, 1, frames=rows(*[count % 5] * count, width=6))
        captured.flush()
        assert points(captured, "ml.output.item.confidence", OUTPUT) == {"frames": 17}
        assert {"ml.predictions", "ml.prediction.confidence"}.isdisjoint(captured.metrics())


@pytest.mark.parametrize("kinds", [{}, {"out": "probabilities"}])
@pytest.mark.parametrize("width", [2, 6])
def test_a_vector_without_an_axis_of_samples_is_one_prediction(kinds: dict[str, Any], width: int) -> None:
    session = session_of({"out": ("float32", [width])}, has_batch=False)
    with capture(models=options(**kinds)) as captured:
        for label in (0, 0, 1):
            run(session, 1, out=rows(label, width=width)[0])
        captured.flush()
        assert points(captured, "ml.predictions", LABEL) == {"0": 2, "1": 1}


def test_ranked_texts_and_their_scores_are_one_prediction() -> None:
    session = session_of({"names": ("str", ["N", 2]), "scores": ("float32", ["N", 2])})
    declared = ModelOptions(output_kind={"names": "top_k", "scores": "top_k"}, labels=["ant", "bee", "cow"])
    with capture(models={"heads": declared}) as captured:
        texts = np.array([["ant", "bee"], ["cow", "ant"]], dtype=object)
        run(session, 2, names=texts, scores=np.array([[0.75, 0.25], [0.5, 0.5]], np.float32))
        captured.flush()
        assert points(captured, "ml.predictions", OUTPUT, LABEL) == {(None, "ant"): 1, (None, "cow"): 1}
        assert points(captured, "ml.prediction.confidence", OUTPUT) == {None: 2}


def test_texts_that_are_declared_to_be_ranked_are_not_reported_as_labels() -> None:
    session = session_of({"out": ("str", ["N", 2])})
    with capture(models=options(out="top_k")) as captured:
        run(session, 2, out=np.array([["ant", "bee"], ["cow", "ant"]], dtype=object))
        captured.flush()
        assert captured.handle.status().findings == {}


def test_a_kind_once_counted_never_becomes_another() -> None:
    session = session_of({"out": ("float32", ["N", 3])})
    with capture() as captured:
        run(session, 2, out=rows(0, 1))
        for _ in range(3):
            run(session, 2, out=RNG.normal(size=(2, 3)).astype(np.float32) * 9)
            captured.flush()
        run(session, 1, out=rows(2))
        captured.flush()
        assert points(captured, "ml.predictions", LABEL) == {"0": 1, "1": 1}
        assert captured.handle.status().findings["heads"]["output out"].startswith("rows contradict probabilities")


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    st.sampled_from(["probabilities", "logits", "sigmoid", "labels", "multi_label", "top_k"]),
    st.floats(0, 1),
    st.booleans(),
)
def test_labels_and_rows_that_have_none_add_up_to_all_rows(
    sizes: list[int], kind: Any, missing: float, is_single: bool
) -> None:
    width = 1 if kind in {"sigmoid", "labels"} else 40
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for size in sizes:
        values = np.sort(RNG.random((size, width)).astype(np.float32))[:, ::-1] / width
        if kind != "labels":
            values[RNG.random(size) < missing] = np.nan
        out: dict[str, Any] = {"out": RNG.integers(0, 9, (size, 1)) if kind == "labels" else values}
        if kind == "top_k" and not is_single:
            out["indices"] = RNG.integers(0, 9, (size, width))
        calls.append(({"x": np.zeros((size, 2))}, out))
    snapshot = summarize(copy_calls(calls), ModelOptions(output_kind=kind))
    counted = sum(snapshot.labels.get("", {}).values())
    if kind == "multi_label":
        counted = snapshot.confidences.get("", np.zeros(0)).size
    assert counted + sum(snapshot.uncounted.values()) == sum(sizes)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 400), st.booleans())
def test_every_text_label_of_a_batch_is_counted_where_the_scores_say_it(size: int, do_agree: bool) -> None:
    """Of texts 64 are copied at most, of scores these all."""
    codes = RNG.integers(0, 3, size)
    names = ["ant", "bee", "cow"]
    said = codes if do_agree else (codes + 1) % 3
    outputs = {"label": np.array([names[code] for code in said], dtype=object), "p": rows(*codes)}
    snapshot = summarize(copy_calls([({"x": np.zeros((size, 1))}, outputs)]), ModelOptions(labels=names))
    labels = snapshot.labels[""]
    if do_agree or size <= 64:
        assert labels == {names[code]: count for code, count in enumerate(np.bincount(said, minlength=3)) if count}
    assert sum(labels.values()) + snapshot.uncounted[""] == size


def test_the_label_of_a_row_is_not_taken_from_scores_of_several_labels() -> None:
    """Of texts 64 are copied at most; which of several labels the others would be cannot be known."""
    names = ["ant", "bee", "cow"]
    outputs = {"label": np.array(["bee"] * 200, dtype=object), "p": np.full((200, 3), 0.9, np.float32)}
    declared = ModelOptions(labels=names, output_kind={"p": "multi_label"})
    snapshot = summarize(copy_calls([({"x": np.zeros((200, 1))}, outputs)]), declared)
    assert (snapshot.labels, snapshot.uncounted) == ({"": {"bee": 50}}, {"": 150})


def test_the_label_of_a_row_is_not_taken_from_scores_of_fewer_rows() -> None:
    codes = np.zeros(200, dtype=np.int64)
    scores = rows(*codes)
    scores[7] = np.nan
    outputs = {"label": np.array(["ant"] * 200, dtype=object), "p": scores}
    snapshot = summarize(copy_calls([({"x": np.zeros((200, 1))}, outputs)]), ModelOptions(labels=["ant", "bee", "cow"]))
    assert (snapshot.labels, snapshot.uncounted) == ({"": {"ant": 50}}, {"": 150})


@pytest.mark.parametrize(("operator", "count"), [("ArgMax", 50), ("Identity", 0)])
def test_the_first_positions_of_classes_are_named_and_other_numbers_hashed(operator: str, count: int) -> None:
    """Sixty numbers may be customers, and all are hashed; of positions each process names the first fifty."""
    is_position = operator == "ArgMax"
    options: dict[str, Any] = {"axis": 1, "keepdims": 0} if is_position else {}
    node = helper.make_node(operator, ["x"], ["at"], **options)
    value = helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 60] if is_position else ["N"])
    graph = helper.make_graph([node], "heads", [value], [helper.make_tensor_value_info("at", TensorProto.INT64, ["N"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString())
    with capture() as captured:
        session.run(None, {"x": np.eye(60, dtype=np.int64)[::-1] if is_position else np.arange(60)})
        captured.flush()
        named = filter(str.isdecimal, points(captured, "ml.predictions", LABEL))
        assert sorted(map(int, named)) == list(range(count))


def test_a_rank_that_changes_and_no_rows_are_timed_and_raise_nothing() -> None:
    session = session_of({"out": ("float32", ["a", "b"])})
    with capture() as captured:
        run(session, 0, out=np.zeros((0, 3), np.float32))
        run(session, 2, out=rows(0, 1))
        run(session, 0, out=np.zeros((0, 0), np.float32))
        captured.flush()
        assert points(captured, "ml.predictions", LABEL) == {"0": 1, "1": 1}
        assert points(captured, "ml.inference.duration", OUTPUT) == {None: 3}
        assert captured.handle.status().failures == {}


def test_a_huge_output_costs_no_more_than_its_sample() -> None:
    """A gigabyte that takes no memory, as an output would be handed over."""
    huge = np.broadcast_to(np.float32(0.5), (1, 16_384, 16_384))
    flat = np.broadcast_to(np.float32(0.5), (1 << 28, 1))
    started_s = time.perf_counter()
    records = copy_calls([({"x": np.zeros((1, 1))}, {"map": huge, "flat": flat})])
    snapshot = summarize(records, ModelOptions(output_kind={"map": "sequence", "flat": "sigmoid"}))
    assert time.perf_counter() - started_s < 1
    assert snapshot.item_counts["map"].tolist() == [16_384.0]
    labels = snapshot.labels[""]
    assert (sum(labels.values()) + snapshot.uncounted[""], sum(labels.values()) <= 16_384) == (1 << 28, True)
    assert snapshot.durations_s[""].size == 1


def test_a_declared_kind_that_cannot_fit_is_said() -> None:
    session = session_of({"maps": ("float32", ["N", 2, 3])})
    with capture(models=options(maps="probabilities")) as captured:
        run(session, 1, maps=np.ones((1, 2, 3), np.float32))
        captured.flush()
        finding = captured.handle.status().findings["heads"]["output maps"]
        assert finding == "probabilities does not fit its three axes, timed only"
    with capture() as captured:
        run(session, 1, maps=np.ones((1, 2, 3), np.float32))
        captured.flush()
        assert captured.handle.status().findings["heads"]["output maps"] == TIMED_ONLY
