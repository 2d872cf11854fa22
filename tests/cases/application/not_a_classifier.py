"""Models that are no classifiers, with the output shapes people have.

A regression of several targets, a transformer, a detector, a forecast, an audio frame or a policy of continuous
actions gives many numbers a row, just as a classifier does. The place of the greatest of them means nothing. None of
these may be reported as a classification, that is with predicted labels and a confidence: such numbers look true, are
watched for drift, and alarm or calm people about nothing. Values, embeddings, or nothing at all are acceptable.

The last two are classifiers, as a control: they must be reported as such, or silence would pass this case.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from otel_mlmon.testing import capture
from tests.cases import support

CALLS = 60
random = np.random.default_rng(0)
Head = tuple[dict[str, tuple[str, list[Any]]], Callable[[int], list[np.ndarray]]]


def sine(call: int) -> np.ndarray:
    samples: np.ndarray = 0.3 * np.sin(np.arange(480) * 0.05 * (1 + call % 5))[None]
    return samples


def detections(count: int) -> np.ndarray:
    """Rows of image, box, class and score."""
    boxes, classes, scores = random.random((count, 4)) * 640, random.integers(0, 80, count), random.random(count)
    return np.column_stack([np.zeros(count), boxes, classes, scores])


def blank_mostly(steps: int, classes: int) -> np.ndarray:
    """Logits a time step in which, as in speech, the blank is nearly always the greatest."""
    return np.where(np.arange(classes) == 0, 9, 0) + random.normal(size=(steps, 1, classes))


HEADS: dict[str, Head] = {
    "scaler_output": ({"scaled": ("float32", ["N", 6])}, lambda call: [random.normal(size=(4, 6))]),
    "pca_output": ({"components": ("float32", ["N", 4])}, lambda call: [random.normal(size=(4, 4)) * [5, 3, 2, 1]]),
    "yaw_pitch_roll": ({"angles": ("float32", ["N", 3])}, lambda call: [random.normal(size=(4, 3)) * 20]),
    "three_prices": ({"variable": ("float32", ["N", 3])}, lambda call: [random.normal(size=(4, 3)) * 50 + 100]),
    "forecast_24_steps": ({"output_0": ("float32", ["N", 24])}, lambda call: [100 + 10 * random.normal(size=(1, 24))]),
    "three_quantiles": (
        {"quantiles": ("float32", ["N", 3])},
        lambda call: [np.sort(random.normal(size=(2, 3)) * 5 + 20, -1)],
    ),
    "detector_n_by_7": ({"output": ("float32", ["n", 7])}, lambda call: [detections(6)]),
    "detector_anchors": (
        {"448": ("float32", [800, 1]), "451": ("float32", [800, 4]), "454": ("float32", [800, 10])},
        lambda call: [random.random((800, 1)) ** 8, random.random((800, 4)) * 5, random.normal(size=(800, 10))],
    ),
    "ctc_time_first": ({"387": ("float32", ["T", 1, 60])}, lambda call: [blank_mostly(25, 60)]),
    "audio_480_samples": ({"enhanced": ("float32", [1, 480])}, lambda call: [sine(call)]),
    "autoencoder": ({"reconstruction": ("float32", ["N", 30])}, lambda call: [random.normal(size=(1, 30))]),
    "pixels_in_unit_range": ({"reconstruction": ("float32", ["N", 784])}, lambda call: [random.random((1, 784))]),
    "continuous_actions": ({"actions": ("float32", ["N", 8])}, lambda call: [np.tanh(random.normal(size=(1, 8)))]),
}
"""Name: outputs, and what one call gives."""


def linear_regression() -> bytes:
    """Three targets of one scikit-learn LinearRegression, as converters write it."""
    weights = np.random.default_rng(3).normal(size=(3, 5)).ravel().tolist()
    node = helper.make_node(
        "LinearRegressor", ["features"], ["variable"], domain="ai.onnx.ml",
        coefficients=weights, intercepts=[10.0, 20.0, 15.0], targets=3,
    )  # fmt: skip
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 5])]
    return support.model_of([node], inputs, [helper.make_tensor_value_info("variable", TensorProto.FLOAT, ["N", 3])])


def classifier(output: str, last: list[str]) -> bytes:
    """Eight features, five classes, as a control."""
    weights = np.random.default_rng(4).normal(size=(8, 5)).astype("f4")
    names = ["scores", output] if last else [output]
    nodes = [helper.make_node("MatMul", ["features", "weights"], names[:1])]
    nodes += [helper.make_node(kind, names[:1], names[1:], axis=1) for kind in last]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8])]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 5])]
    return support.model_of(nodes, inputs, outputs, constants={"weights": weights})


def reported(model: bytes, feeds: list[dict[str, np.ndarray]]) -> tuple[dict[str, int], int]:
    """Labels counted, and how many confidences."""
    with capture(max_features=0) as captured:
        session = onnxruntime.InferenceSession(model)
        for feed in feeds:
            session.run(None, feed)
        captured.flush()
        metrics = captured.metrics()
    labels = {
        str(point.attributes["ml.prediction.label"]): point.value
        for point in support.points_of(metrics, "ml.predictions")
    }
    return labels, sum(point.count for point in support.points_of(metrics, "ml.prediction.confidence"))


def feeds_of(head: Head) -> tuple[bytes, list[dict[str, np.ndarray]]]:
    outputs, generate = head
    feeds = []
    for call in range(CALLS):
        arrays = zip(outputs.items(), generate(call), strict=True)
        feeds.append({f"in_{name}": np.asarray(array).astype(kind) for (name, (kind, _)), array in arrays})
    return support.identity_model(outputs), feeds


def main() -> None:
    checks = support.Checks()
    cases = {name: feeds_of(head) for name, head in HEADS.items()}
    features = [{"features": random.normal(size=(4, 5)).astype("f4")} for _ in range(CALLS)]
    cases["linear_regression_of_3_targets"] = (linear_regression(), features)
    for name, (model, feeds) in cases.items():
        labels, confidences = reported(model, feeds)
        came = f"{len(labels)} labels, {confidences} confidences" if labels or confidences else "neither"
        checks.that(f"{name}: no labels with a confidence", not (labels and confidences), came)
    for name, last in (("probabilities", ["Softmax"]), ("logits", [])):
        features = [{"features": random.normal(size=(1, 8)).astype("f4")} for _ in range(CALLS)]
        labels, confidences = reported(classifier(name, last), features)
        is_right = sum(labels.values()) == CALLS and confidences == CALLS
        checks.that(f"control {name}: {CALLS} labels and confidences", is_right, f"{labels}, {confidences} confidences")
    one_axis: Head = ({"out": ("float32", [10])}, lambda call: [support.softmax(3 * random.normal(size=10))])
    labels, confidences = reported(*feeds_of(one_axis))
    is_right = sum(labels.values()) in (0, CALLS)  # one prediction a call, or none: not one a class
    checks.that(
        f"softmax of ten classes without a batch axis: {CALLS} predictions or none",
        is_right,
        f"{sum(labels.values())} {labels}",
    )
    checks.finish()


if __name__ == "__main__":
    main()
