"""A digit classifier that ends in a softmax is quantised to int8 with onnxruntime's own `quantize_static`, defaults.

Its probabilities are now multiples of a step of about 1/256, so that a row may sum to 0.97 or 1.02. It is still a
classifier that says one class a row. All its predictions should be counted, under the labels that its own outputs
have, and the mean confidence should be near the mean of its own greatest probability, in both formats (QDQ and
QOperator). Quantised models are what runs on CPUs, and nobody changes the monitoring for them.

Tolerance: counts exact; each label's count equal to that of the outputs' argmax; mean confidence within 0.02.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from otel_mlmon.testing import capture
from tests.cases import support

CLASSES = 10


def trained_network(pixels: np.ndarray, digits: np.ndarray) -> bytes:
    """64 pixels, 32 hidden units, softmax over ten digits."""
    network = MLPClassifier((32,), max_iter=25, random_state=0).fit(pixels, digits)
    nodes = [
        helper.make_node("Gemm", ["pixels", "w0", "b0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w1", "b1"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    names = ("w0", "w1", "b0", "b1")
    constants = dict(zip(names, (array.astype("f4") for array in (*network.coefs_, *network.intercepts_)), strict=True))
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 64])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])]
    return support.model_of(nodes, inputs, outputs, constants=constants)


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pixels: np.ndarray) -> None:
        self._batches = iter([{"pixels": pixels[start : start + 50]} for start in range(0, len(pixels), 50)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def watch(path: str, images: np.ndarray) -> tuple[np.ndarray, dict[str, int], int, float]:
    """The model's own outputs; labels counted; confidences counted and their mean."""
    with capture(max_features=0) as captured:
        session = onnxruntime.InferenceSession(path)
        outputs = np.concatenate([session.run(None, {"pixels": image[None]})[0] for image in images])
        captured.flush()
        metrics = captured.metrics()
    labels = {
        point.attributes["ml.prediction.label"]: point.value for point in support.points_of(metrics, "ml.predictions")
    }
    confidences = support.points_of(metrics, "ml.prediction.confidence")
    count = sum(point.count for point in confidences)
    return outputs, labels, count, sum(point.sum for point in confidences) / max(count, 1)


def main() -> None:
    checks = support.Checks()
    data = load_digits()
    pixels = (data.data / 16).astype("f4")
    with tempfile.TemporaryDirectory() as directory:
        original = str(Path(directory) / "float.onnx")
        Path(original).write_bytes(trained_network(pixels[:1000], data.target[:1000]))
        for form in (QuantFormat.QDQ, QuantFormat.QOperator):
            quantised = str(Path(directory) / f"{form.name}.onnx")
            quantize_static(original, quantised, Calibration(pixels[:1000]), quant_format=form)
            outputs, labels, count, confidence = watch(quantised, pixels[1000:])
            truth = np.bincount(outputs.argmax(1), minlength=CLASSES).tolist()
            counted = [labels.get(str(digit), 0) for digit in range(CLASSES)]
            own = float(outputs.max(1).mean())
            checks.that(
                f"{form.name}: {len(outputs)} predictions counted",
                sum(labels.values()) == len(outputs),
                sum(labels.values()),
            )
            checks.that(f"{form.name}: labels {truth}", counted == truth, counted)
            checks.that(
                f"{form.name}: mean confidence {own:.3f} of {len(outputs)}",
                count == len(outputs) and abs(confidence - own) <= 0.02,
                f"{confidence:.3f} of {count}",
            )
    checks.finish()


if __name__ == "__main__":
    main()
