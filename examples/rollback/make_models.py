"""Makes two versions of a small model: `python make_models.py models`. Version 2 was trained badly. Needs `onnx`."""

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LABELS = "low,middle,high"


def make_model(version: int, bias: list[float]) -> bytes:
    """Makes a classifier of four features: `input` (N, 4) to `probabilities` (N, 3)."""
    weights = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["input", "weights", "bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "triage",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(bias, dtype=np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.model_version = version
    for key, value in (("model_name", "triage"), ("classes", LABELS)):
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
folder.mkdir(parents=True, exist_ok=True)
(folder / "1.onnx").write_bytes(make_model(1, [0.0, 0.0, 0.0]))
(folder / "2.onnx").write_bytes(make_model(2, [0.0, 0.0, 4.0]))
print(f"Two versions of triage in {folder}.")
