"""The one line: every inference of this program is measured. Ends by itself.

OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 python examples/one_line.py
"""

from importlib.resources import files

import numpy as np
import onnxruntime

import otel_mlmon

otel_mlmon.instrument()

session = onnxruntime.InferenceSession((files("otel_mlmon.demo") / "digits.onnx").read_bytes())
images = np.random.default_rng(7).random((100, 1, 8, 8), dtype=np.float32)
for image in images:
    session.run(None, {session.get_inputs()[0].name: image[np.newaxis]})

print(f"{len(images)} inferences, measured.")
