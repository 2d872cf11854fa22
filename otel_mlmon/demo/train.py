"""`python -m otel_mlmon.demo.train [folder]` trains the demo's model. Needs scikit-learn and onnx.

A perceptron with one hidden layer learns scikit-learn's handwritten digits; the test images become the traffic. The
seed is fixed, so the same versions of the libraries write the same model.

Choice: weights are written with `onnx.helper`, five nodes in all; a converter would be one dependency more.
Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SEED: Final = 7
HIDDEN_UNITS: Final = 48
TRAFFIC_RATIO: Final = 0.4
"""The share of the images that are not used for training, but become traffic."""

GREY_LEVELS: Final = 16
"""Pixels are 0 … 16."""

OPSET: Final = 17
IR_VERSION: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseLayer:
    """The weights and biases of one dense layer of a neural network."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def train_model(folder: Path) -> float:
    """Trains the demo's classifier of digits, writes model and images to a folder, and returns its accuracy.

    Returns:
        The accuracy of the model on the images of the traffic, [0, 1].
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    digits = load_digits()
    images, test_images, labels, test_labels = train_test_split(
        digits.data, digits.target, test_size=TRAFFIC_RATIO, stratify=digits.target, random_state=SEED
    )
    classifier = MLPClassifier((HIDDEN_UNITS,), alpha=0.1, max_iter=2000, random_state=SEED)
    classifier.fit(images / GREY_LEVELS, labels)
    accuracy = float(classifier.score(test_images / GREY_LEVELS, test_labels))

    layers = [
        DenseLayer(weight=weight.astype(np.float32), bias=bias.astype(np.float32))
        for weight, bias in zip(classifier.coefs_, classifier.intercepts_, strict=True)
    ]
    write_onnx_model(folder / "digits.onnx", layers, accuracy=accuracy)
    np.savez_compressed(
        folder / "digits.npz",
        images=test_images.reshape(-1, 1, 8, 8).astype(np.uint8),
        labels=test_labels.astype(np.uint8),
    )
    return accuracy


def write_onnx_model(path: Path, layers: list[DenseLayer], *, accuracy: float) -> None:
    """Writes a perceptron as an ONNX model from `image` (N, 1, 8, 8) in [0, 1] to `probabilities` (N, 10)."""
    from onnx import TensorProto, checker, helper, save_model

    first, second = layers
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["pixels"], axis=1),
            helper.make_node("Gemm", ["pixels", "weight_1", "bias_1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "weight_2", "bias_2"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        [
            _make_onnx_tensor(name, values)
            for name, values in zip(
                ("weight_1", "bias_1", "weight_2", "bias_2"),
                (first.weight, first.bias, second.weight, second.bias),
                strict=True,
            )
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name, model.model_version = "otel_mlmon.demo.train", 1
    metadata = {
        "model_name": "digits",
        "model_version": "1",
        "classes": json.dumps([str(digit) for digit in range(10)]),
        "accuracy": f"{accuracy:.4f}",
    }
    helper.set_model_props(model, metadata)
    checker.check_model(model, full_check=True)
    save_model(model, path)


def _make_onnx_tensor(name: str, values: NDArray[np.float32]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    sys.stdout.write(f"accuracy on the images of the traffic: {train_model(target):.4f}\n")
