"""From training data to a processor that never learns: the reference travels in the model, over OTLP, and is kept."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.support.models import softmax
from tests.support.otlp_requests import counter, request
from tests.support.processes import processor, run_python, until

pytestmark = pytest.mark.e2e

CLASSES = ("ant", "bee", "cow")


def trained(folder: Path) -> str:
    """A model and its data, brought together by the command line; the text that the model carries then."""
    (folder / "insects.onnx").write_bytes(softmax(classes=3, metadata={"names": str(list(CLASSES))}, version=4))
    rows = np.random.default_rng(1).normal(size=(3000, 3)).astype(np.float32)
    np.savez(folder / "train.npz", rows=rows, kind=np.array([CLASSES[code] for code in rows.argmax(axis=1)]))
    words = [
        "reference",
        "build",
        "insects.onnx",
        "train.npz",
        "--labels",
        "kind",
        "--in-order",
        "--embed",
        "carrying.onnx",
    ]
    done = run_python(["-m", "otel_mlmon", *words], cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("insects 4: 3000 rows, 5 streams: carrying.onnx\naccuracy 100.00 % of 3000")
    session = onnxruntime.InferenceSession(str(folder / "carrying.onnx"), providers=["CPUExecutionProvider"])
    return str(session.get_modelmeta().custom_metadata_map["otel_mlmon.reference"])


def loaded(reference: str) -> bytes:
    """What an application sends when it has loaded the model."""
    message = ExportLogsServiceRequest()
    record = message.resource_logs.add().scope_logs.add().log_records.add(event_name="ml.model.loaded")
    said = {"ml.model.name": "insects", "ml.model.version": "4", "ml.model.reference": reference}
    for key, value in said.items():
        record.attributes.add(key=key).value.string_value = value
    return bytes(message.SerializeToString())


def test_a_model_that_carries_its_reference_is_watched_from_its_first_prediction(tmp_path: Path) -> None:
    reference = trained(tmp_path)
    with processor(tmp_path / "processor") as running:

        def post(signal: str, body: bytes) -> None:
            answer = httpx.post(
                f"http://127.0.0.1:{running.http}/v1/{signal}",
                content=body,
                headers={"content-type": "application/x-protobuf"},
            )
            assert (answer.status_code, answer.content) == (200, b"")

        post("logs", loaded(reference))
        running.kill()
        running.start()
        attributes = {"ml.model.name": "insects", "ml.model.version": "4", "ml.prediction.label": "bee"}
        post(
            "metrics",
            request("ml.predictions", "sum", counter(10), attributes=attributes, temporality=1).SerializeToString(),
        )
        stream = until(lambda: running.stream("insects", "prediction.label"), what="the stream is there")
        assert stream["origin"] == "model"
        assert (stream["reference_count"], sorted(stream["bins"])) == (3000, ["_OTHER", *CLASSES])
        assert running.stop() == 0
