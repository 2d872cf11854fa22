"""The shipped model and images are what the script makes and claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from otel_mlmon.demo import train
from otel_mlmon.demo.service import MODEL_FILE
from otel_mlmon.demo.traffic import IMAGES_FILE, load_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("made")
    return folder, train.train_model(folder)


def measured_accuracy(model: Path, images: Path) -> float:
    values, labels = load_images(images)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    inputs = values.astype(np.float32) / train.GREY_LEVELS
    return float((session.run(None, {"image": inputs})[0].argmax(axis=1) == labels).mean())


def test_training_again_gives_an_equally_good_model(trained: tuple[Path, float]) -> None:
    folder, accuracy = trained
    assert accuracy >= 0.95
    assert measured_accuracy(folder / "digits.onnx", folder / "digits.npz") == pytest.approx(accuracy, abs=2e-3)


def test_training_again_keeps_the_same_images_for_traffic(trained: tuple[Path, float]) -> None:
    again, shipped = load_images(trained[0] / "digits.npz"), load_images()
    assert [values.tolist() for values in again] == [values.tolist() for values in shipped]


def test_the_shipped_model_is_as_accurate_as_its_metadata_say() -> None:
    metadata = {item.key: item.value for item in onnx.load(MODEL_FILE).metadata_props}
    accuracy = measured_accuracy(MODEL_FILE, IMAGES_FILE)
    assert accuracy >= 0.95
    assert metadata == {
        "model_name": "digits",
        "model_version": "1",
        "classes": '["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]',
        "accuracy": metadata["accuracy"],
    }
    assert accuracy == pytest.approx(float(metadata["accuracy"]), abs=2e-3)


def test_the_shipped_model_has_the_promised_form() -> None:
    session = onnxruntime.InferenceSession(str(MODEL_FILE), providers=["CPUExecutionProvider"])
    ends = [(end.name, end.shape, end.type) for end in (*session.get_inputs(), *session.get_outputs())]
    assert ends == [
        ("image", ["N", 1, 8, 8], "tensor(float)"),
        ("probabilities", ["N", 10], "tensor(float)"),
    ]
    assert session.get_modelmeta().version == 1
    model = onnx.load(MODEL_FILE)
    assert (model.ir_version, [entry.version for entry in model.opset_import]) == (8, [17])


def test_the_shipped_files_are_small() -> None:
    assert MODEL_FILE.stat().st_size <= 40_000
    assert IMAGES_FILE.stat().st_size <= 60_000


def test_confidence_truly_drops_in_dim_light() -> None:
    images, _ = load_images()
    session = onnxruntime.InferenceSession(str(MODEL_FILE), providers=["CPUExecutionProvider"])
    inputs = images.astype(np.float32) / train.GREY_LEVELS
    bright, dim = (
        float(session.run(None, {"image": inputs * np.float32(ratio)})[0].max(axis=1).mean()) for ratio in (1.0, 0.55)
    )
    assert bright - dim > 0.05
