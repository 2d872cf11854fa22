"""A retrieval or tagging model ends in TopK: it gives the best scores and, in a second output, which classes they
are.

The classes are in the second output; the position in the first one is only a rank. Whatever is counted as a label
must be a class that the model said, not the rank, which is 0 for every call: counted by position, one label would
hold everything and no drift of the classes could ever be seen. Not counting labels at all is acceptable too.
"""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from otel_mlmon.testing import capture
from tests.cases import support

CLASSES, CALLS = 6, 400


def top_two_model() -> bytes:
    nodes = [
        helper.make_node("Softmax", ["features"], ["probabilities"], axis=1),
        helper.make_node("TopK", ["probabilities", "two"], ["scores", "classes"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", CLASSES])]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("classes", TensorProto.INT64, ["N", 2]),
    ]
    return support.model_of(nodes, inputs, outputs, constants={"two": np.array([2])})


def main() -> None:
    checks = support.Checks()
    features = (np.random.default_rng(0).normal(size=(CALLS, CLASSES)) * 2).astype("f4")
    with capture(max_features=0) as captured:
        session = onnxruntime.InferenceSession(top_two_model())
        best = [int(session.run(None, {"features": row[None]})[1][0, 0]) for row in features]
        captured.flush()
        metrics = captured.metrics()
    counted = {
        point.attributes["ml.prediction.label"]: point.value for point in support.points_of(metrics, "ml.predictions")
    }
    truth = {str(each): best.count(each) for each in sorted(set(best))}
    checks.that(f"labels {truth}, or none at all", not counted or counted == truth, counted)
    checks.finish()


if __name__ == "__main__":
    main()
