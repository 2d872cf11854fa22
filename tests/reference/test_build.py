from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from otel_mlmon import semconv, testing
from otel_mlmon.errors import DataError
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.reference.build import BuiltReference, OnnxModel
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.vocabulary import TextBuckets
from tests.support import models

RNG = np.random.default_rng(11)


def model(folder: Path, content: bytes, name: str = "fraud") -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(content)
    return path


def profiled(
    path: Path, *, options: ModelOptions | None = None, truth: Any = None, **feed: np.ndarray
) -> BuiltReference:
    return OnnxModel(path).build_profile(feed, options=options, truth=truth)


def test_what_is_profiled_is_what_the_application_sends(tmp_path: Path) -> None:
    path = model(tmp_path, models.softmax(classes=4, metadata={"names": '["a", "b", "c", "d"]'}, version=7))
    rows = RNG.normal(size=(700, 4)).astype(np.float32)
    rows[::10, 0] = np.nan
    built = profiled(path, input=rows)
    with testing.capture() as live:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for start in range(0, 700, 7):
            session.run(None, {"input": rows[start : start + 7]})
        live.flush()
        metrics = live.metrics()
        sent: dict[str, list[Any]] = {name: list(metric.data.data_points) for name, metric in metrics.items()}
    streams = built.profile.streams
    label, confidence = streams["prediction.label"], streams["prediction.confidence"]
    assert label.categories.counts == {
        point.attributes["ml.prediction.label"]: point.value for point in sent["ml.predictions"]
    }
    (point,) = sent["ml.prediction.confidence"]
    assert confidence.explicit[semconv.CONFIDENCE_BOUNDS].counts.tolist() == list(point.bucket_counts)
    missing = {point.attributes["ml.feature.name"]: point.value for point in sent["ml.input.missing"]}
    assert {name: streams[f"input.{name}"].missing for name in missing} == missing == {"f0": 70}
    for point in sent["ml.input.feature"]:
        moments = streams[f"input.{point.attributes['ml.feature.name']}"].moments
        assert moments.count == point.count
        assert point.sum == pytest.approx(moments.mean * moments.count, abs=4e-4 * 4 * 700)
    attributes = sent["ml.predictions"][0].attributes
    assert (built.profile.model, built.profile.version) == (attributes["ml.model.name"], attributes["ml.model.version"])
    assert (built.rows, built.skipped_rows) == (700, 0)


def test_every_row_counts_however_wide_they_are(tmp_path: Path) -> None:
    path = model(tmp_path, models.classifier(features=500, classes=30))
    built = profiled(path, input=RNG.normal(size=(333, 500)).astype(np.float32))
    assert built.profile.streams["prediction.label"].total == 333
    inputs = [sketch for name, sketch in built.profile.streams.items() if name.startswith("input.")]
    assert {sketch.total for sketch in inputs} == {333}
    assert len(inputs) == 2  # mean and spread, as in the application


def test_images_are_profiled_by_their_looks(tmp_path: Path) -> None:
    path = model(tmp_path, models.image(height="H", width="W", channels=3))
    built = profiled(path, image=RNG.random(size=(20, 3, 90, 70)).astype(np.float32))
    streams = built.profile.streams
    assert streams["input.image.width"].moments.mean == pytest.approx(70, rel=4e-4)
    assert streams["input.image.brightness"].moments.mean == pytest.approx(0.5, abs=0.01)
    assert {streams[f"input.{name}"].total for name in semconv.IMAGE_FEATURES} == {20}


def test_words_of_the_developer_are_heard(tmp_path: Path) -> None:
    path = model(tmp_path, models.softmax(classes=3))
    rows = np.round(RNG.random(size=(50, 3))).astype(np.float32)
    options = ModelOptions(version="9", labels=["x", "y", "z"], features=["u", "v", "w"], categorical=["u"])
    profile = profiled(path, options=options, input=rows).profile
    assert profile.version == "9"
    assert sorted(profile.streams) == [
        "input.u", "input.v", "input.w", "prediction.confidence", "prediction.label",
    ]  # fmt: skip
    assert set(profile.streams["input.u"].categories.counts) == {"0", "1"}
    assert set(profile.streams["prediction.label"].categories.counts) <= {"x", "y", "z"}


def test_a_regression_has_values_and_texts_are_categories(tmp_path: Path) -> None:
    words = np.array([["red"], ["blue"], [""], ["red"]], dtype=object)
    built = profiled(model(tmp_path, models.strings()), word=words, number=np.ones((4, 1), dtype=np.float32))
    word = built.profile.streams["input.word"]
    buckets = TextBuckets(key="", model=built.profile.model)
    assert (dict(word.categories.counts), word.missing) == (
        {buckets.assign_bucket("red"): 2, buckets.assign_bucket("blue"): 1},
        1,
    )
    kept = profiled(
        model(tmp_path, models.strings()), options=ModelOptions(keep_text=["word"]), word=words,
        number=np.ones((4, 1), dtype=np.float32),
    ).profile.streams["input.word"]  # fmt: skip
    assert dict(kept.categories.counts) == {"red": 2, "blue": 1}
    rows = RNG.normal(size=(200, 2)).astype(np.float32)
    value = profiled(model(tmp_path, models.regression(), "price"), input=rows).profile.streams["prediction.value"]
    assert value.moments.mean == pytest.approx(float(rows.sum(axis=1).mean()), abs=0.01)


def test_labels_give_the_calibration(tmp_path: Path) -> None:
    path = model(tmp_path, models.softmax(classes=3, metadata={"names": "['a', 'b', 'c']"}))
    rows = RNG.normal(scale=2, size=(400, 3)).astype(np.float32)
    rows[5] = np.nan
    probabilities = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    truth: list[str | None] = ["abc"[int(row)] for row in RNG.integers(0, 3, size=400)]
    truth[7] = None
    right = np.array(["abc"[int(code)] == label for code, label in zip(rows.argmax(axis=1), truth, strict=True)])
    labelled = [row for row in range(400) if row not in (5, 7)]  # of row 5 there is no score, of row 7 no label
    assert profiled(path, truth=truth, input=rows).profile.calibration == Calibration.from_predictions(
        probabilities.max(axis=1)[labelled], right[labelled]
    )


def test_labels_may_be_the_positions_of_the_classes(tmp_path: Path) -> None:
    path = model(tmp_path, models.softmax(classes=3, metadata={"names": "['a', 'b', 'c']"}))
    rows = RNG.normal(size=(60, 3)).astype(np.float32)
    truth = [str(code) for code in rows.argmax(axis=1)]
    calibration = profiled(path, truth=truth, input=rows).profile.calibration
    assert calibration is not None
    assert (calibration.accuracy, int(calibration.total.sum())) == (1.0, 60)
    with pytest.raises(DataError, match="it predicts a, b, c; the labels are cat, dog"):
        profiled(path, truth=["cat", "dog"] * 30, input=rows)


def test_a_model_of_a_fixed_batch_leaves_out_what_does_not_fill_one(tmp_path: Path) -> None:
    import onnx

    content = onnx.load_model_from_string(models.softmax(classes=2))
    for value in (*content.graph.input, *content.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    path = model(tmp_path, content.SerializeToString())
    built = profiled(path, input=np.zeros((20, 2), dtype=np.float32))
    assert (built.rows, built.skipped_rows, built.profile.streams["prediction.label"].total) == (16, 4, 16)
    with pytest.raises(DataError, match="3 rows do not fill the one batch"):
        profiled(path, input=np.zeros((3, 2), dtype=np.float32))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        OnnxModel(tmp_path / "none.onnx")
    with pytest.raises(DataError, match=r"fraud\.onnx: "):
        OnnxModel(model(tmp_path, b"not a model"))
    with pytest.raises(DataError, match="the model cannot be run on the rows from 0 on"):
        profiled(model(tmp_path, models.softmax(classes=3)), input=np.zeros((5, 2), dtype=np.float32))
