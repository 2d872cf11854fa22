"""What is found out about outputs and inputs, from a real session to the metrics and `status()`."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from otel_mlmon import ModelOptions
from otel_mlmon.testing import Captured, capture
from tests.support import models


def points(captured: Captured, name: str, key: str) -> dict[Any, Any]:
    metric = captured.metrics().get(name)
    found = metric.data.data_points if metric else []
    return {(point.attributes or {}).get(key): getattr(point, "value", point) for point in found}


def test_a_function_reads_what_no_kind_describes() -> None:
    session = ort.InferenceSession(models.identity("N", 2, 3, name="finder"))

    def read(outputs: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
        best = outputs["output"].max(axis=2)
        outputs["output"][:] = 0
        return ["far" if row[0] > row[1] else "near" for row in best], best.max(axis=1)

    boxes = np.array([[[0.1, 0.7, 0.2], [0.1, 0.1, 0.1]], [[0, 0, 0], [0.9, 0, 0]]], dtype=np.float32)
    with capture(models={"finder": ModelOptions(output_kind=read)}) as captured:
        (answer,) = session.run(None, {"input": boxes})
        captured.flush()
        assert points(captured, "ml.predictions", "ml.prediction.label") == {"far": 1, "near": 1}
        (confidence,) = points(captured, "ml.prediction.confidence", "").values()
        assert (confidence.count, confidence.sum) == (2, pytest.approx(1.6))
        assert np.array_equal(answer, boxes)
        assert captured.handle.status().failures == {}


def test_what_was_found_out_is_in_the_status_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    wide = models.identity("N", 7, name="wide")
    maps = models.identity("N", 2, 5, 5, name="maps")
    with caplog.at_level(logging.INFO, logger="otel_mlmon"), capture(max_features=3, max_labels=2) as captured:
        for _ in range(3):  # sessions of the same models
            first, second = ort.InferenceSession(wide), ort.InferenceSession(maps)
            first.run(None, {"input": 0.3 * np.eye(7, dtype=np.float32) + np.float32(0.1)})
            second.run(None, {"input": np.zeros((1, 2, 5, 5), np.float32)})
        captured.flush()
        timed_only = "unknown kind, timed only (set ModelOptions.output_kind)"
        full = "more than max_labels, of which some or all are in buckets"
        assert captured.handle.status().findings == {
            "wide": {
                "output output": "probabilities",
                "inputs": "7 columns, the first 3 are profiled (max_features)",
                "labels": full,
            },
            "maps": {"outputs": timed_only},
        }
        counts = points(captured, "ml.predictions", "ml.prediction.label")
        assert (counts.pop("0"), counts.pop("1"), sum(counts.values())) == (3, 3, 15)
        assert all(label.startswith("#") for label in counts)
        assert set(points(captured, "ml.input.feature", "ml.feature.name")) == {"f0", "f1", "f2"}
    lines = [record.getMessage() for record in caplog.records if record.name == "otel_mlmon"]
    assert sorted(line for line in lines if line.startswith("Model")) == [
        f"Model maps, outputs: {timed_only}.",
        "Model wide, inputs: 7 columns, the first 3 are profiled (max_features).",
        f"Model wide, labels: {full}.",
    ]


def test_embeddings_independent_labels_and_whole_numbers() -> None:
    with capture() as captured:
        ort.InferenceSession(models.identity("N", 2, name="e", output="embedding")).run(
            None, {"input": np.array([[3, 4]], np.float32)}
        )
        ort.InferenceSession(models.identity("N", 3, name="t", output="tags")).run(
            None, {"input": np.array([[0.9, 0.2, 0.8], [0.1, 0.1, 0.1]], np.float32)}
        )
        ort.InferenceSession(models.identity("N", 1, name="w", output="label", dtype=7)).run(
            None, {"input": np.array([[2]] * 6 + [[3]])}
        )
        lengths = points(captured, "ml.prediction.value", "ml.output.name")
        assert {name: (point.count, point.sum) for name, point in lengths.items()} == {
            "embedding.norm": (1, pytest.approx(5.0, rel=4e-4))
        }
        predicted = points(captured, "ml.predictions", "ml.prediction.label")
        assert predicted == {"0": 1, "2": 6, "3": 1}
        every: list[Any] = list(captured.metrics()["ml.prediction.confidence"].data.data_points)
        (confidence,) = [point.sum for point in every if point.attributes["ml.model.name"] == "t"]
        assert confidence == pytest.approx((0.9 + 0.8 + 0.8) / 3 + 0.9)
        assert points(captured, "ml.input.category", "ml.feature.value") == {"2": 6, "3": 1}


def test_numbers_at_the_edge_of_their_type_reach_the_metrics() -> None:
    session = ort.InferenceSession(models.identity("N", 1, name="edge", output="price", dtype=11))
    edge = np.finfo(np.float64)
    values = np.array([[edge.max], [edge.tiny], [5e-324], [-0.0], [-5e-324], [np.inf], [np.nan]])
    with capture() as captured:
        for _ in range(2):
            session.run(None, {"input": values})
        value = points(captured, "ml.prediction.value", "ml.output.name")[None]
        assert (value.count, value.min, value.max) == (10, math.inf, -math.inf)
        assert points(captured, "ml.input.missing", "ml.feature.name") == {"f0": 4}
        assert captured.handle.status().failures == {}


CLASSES = 200
LABEL = "ml.prediction.label"


def serve(rows: np.ndarray[Any, Any]) -> tuple[dict[str, int], list[str]]:
    """What a fresh worker counts of these predictions, and the classes that its spans have."""
    session = ort.InferenceSession(models.softmax(classes=CLASSES))
    with capture(spans_per_second=0) as captured:
        for row in rows:
            scores = np.zeros((1, CLASSES), dtype=np.float32)
            scores[0, row] = 9.0
            session.run(None, {"input": scores})
        captured.flush()
        named = {str(label): int(count) for label, count in points(captured, "ml.predictions", LABEL).items()}
        attributes = [event.log_record.attributes or {} for event in captured.events]
        return named, [str(part[LABEL]) for part in attributes if LABEL in part]


def test_fresh_workers_name_the_same_of_many_classes() -> None:
    rng = np.random.default_rng(7)
    shares = 1.0 / rng.permutation(np.arange(1, CLASSES + 1))
    rows = rng.choice(CLASSES, 300, p=shares / shares.sum())
    first, classes = serve(rows)
    second, _ = serve(rng.permutation(rows))
    assert first == second
    assert sum(first.values()) == rows.size
    for label in range(50):
        assert first.get(str(label), 0) == int((rows == label).sum())
    assert all(name.isdecimal() or name.startswith("#") for name in first)
    # An event has the class itself.
    assert set(classes) == {str(row) for row in rows}


def test_late_mistakes_are_one_warning_each_and_in_the_status(caplog: pytest.LogCaptureFixture) -> None:
    session = ort.InferenceSession(models.softmax(name="fraud"))
    options = ModelOptions(output_kind={"probabilites": "probabilities"}, labels=["a", "b"])
    scores = {"input": np.eye(4, dtype=np.float32)}
    with capture(models={"fraud": options, "frauds": ModelOptions()}) as captured:
        for _ in range(3):
            session.run(None, scores)
            captured.flush()
        findings = captured.handle.status().findings
        counts = points(captured, "ml.predictions", LABEL)
    texts = {
        "output probabilites": "declared, but the outputs are probabilities. Did you mean probabilities",
        "labels": "2 given for 4 classes",
    }
    assert {subject: findings["fraud"][subject] for subject in texts} == texts
    assert findings["frauds"] == {"description": "no model of this name has run"}
    assert sum(counts.values()) == 12
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sorted(warnings) == sorted(f"Model fraud, {subject}: {text}." for subject, text in texts.items())


def test_a_misspelt_model_is_said_with_its_first_call(caplog: pytest.LogCaptureFixture) -> None:
    session = ort.InferenceSession(models.softmax(name="fraud"))
    with capture(models={"fruad": ModelOptions(labels=["a", "b", "c", "d"])}) as captured:
        for _ in range(3):
            session.run(None, {"input": np.eye(4, dtype=np.float32)})
            captured.flush()
        finding = captured.handle.status().findings["fruad"]["description"]
    assert finding == "no model of this name has run; did you mean fraud, which has"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"Model fruad, description: {finding}."]
