"""A FastAPI service with Sentry, and the one line: a request's inference is a span of its transaction. Never ends.

SENTRY_DSN=https://... python examples/sentry_fastapi.py 8000
"""

import sys
from importlib.resources import files
from typing import Any

import numpy as np
import onnxruntime
import sentry_sdk
import uvicorn
from fastapi import FastAPI

import otel_mlmon

sentry_sdk.init()  # errors only, as Sentry comes: no traces_sample_rate
otel_mlmon.instrument()  # a tenth of the requests are traced from here on; docs/sentry.md says what that costs

session = onnxruntime.InferenceSession((files("otel_mlmon.demo") / "digits.onnx").read_bytes())
app = FastAPI()


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ok": True}


@app.post("/predict")
def predict(rows: list[list[float]]) -> dict[str, Any]:
    # Other than 8 rows of 8 fail in the model: an error in Sentry with the model's name and the request's trace.
    image = np.array(rows, dtype=np.float32)[np.newaxis, np.newaxis]
    (probabilities,) = session.run(None, {"image": image})[0]
    return {"digit": str(probabilities.argmax()), "confidence": float(probabilities.max())}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
