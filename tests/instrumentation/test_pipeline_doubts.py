"""What is said of models whose outputs nothing settles, and of files that share a name, through real sessions."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from otel_mlmon import ModelOptions
from otel_mlmon.instrumentation.decode.output_reports import OutputReport
from otel_mlmon.testing import capture
from tests.support import models

WORDS = "assumed, since its file and name say no more than 4 numbers without bounds or names"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def doubtful(*outputs: str) -> bytes:
    """A model that multiplies its input by a matrix for each output."""
    weights = np.eye(4, dtype=np.float32) * 7
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], [output]) for output in outputs],
        "riddle",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 4]) for output in outputs],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("outputs", "warning"),
    [
        (
            ("y",),
            f"Model riddle, output y: regression, {WORDS}. If it is something else: "
            "otel_mlmon.instrument(models={'riddle': ModelOptions(output_kind={'y': ...})})",
        ),
        (
            ("y", "z"),
            f"Model riddle, output y: regression, {WORDS}; output z: regression, {WORDS}. If they are something else: "
            "otel_mlmon.instrument(models={'riddle': ModelOptions(output_kind={'y': ..., 'z': ...})})",
        ),
    ],
)
def test_in_doubt_there_is_one_warning_a_model_with_the_line_that_settles_it(
    outputs: tuple[str, ...], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = doubtful(*outputs)
    generator = np.random.default_rng(7)
    rows = generator.normal(size=(40, 2, 4)).astype(np.float32)
    with capture() as captured:
        sessions = [ort.InferenceSession(model) for _ in range(3)]

        def work(session: ort.InferenceSession) -> None:
            for batch in rows:
                session.run(None, {"input": batch})
                session.run([outputs[-1]], {"input": batch})

        threads = [threading.Thread(target=work, args=(session,)) for session in sessions for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        captured.flush()
        for session in sessions:  # and after the warning was given
            session.run(None, {"input": rows[0]})
        captured.flush()
        assert captured.handle.status().failures == {}
    assert warnings_of(caplog) == [warning]


def test_the_line_of_the_warning_settles_it(caplog: pytest.LogCaptureFixture) -> None:
    with capture(models={"riddle": ModelOptions(output_kind={"y": "logits"})}) as captured:
        ort.InferenceSession(doubtful("y")).run(None, {"input": np.ones((2, 4), np.float32)})
        captured.flush()
        (outputs,) = captured.handle.status().outputs.values()
    assert outputs == {"y": OutputReport(kind="logits", reason="declared", graph="read")}
    assert warnings_of(caplog) == []


def test_the_kind_of_each_output_is_in_the_event_and_in_the_status() -> None:
    model = models.text_labels(name="insects")
    label = OutputReport(kind="labels", reason="the class of the greatest score, by its operator ArgMax", graph="read")
    scores = OutputReport(
        kind="probabilities", reason="normalised along its classes, by its operator Softmax", graph="read"
    )
    with capture() as captured:
        session = ort.InferenceSession(model)
        captured.flush()
        (event,) = (event.log_record for event in captured.events)
        key = f"insects/{models.digest_version(model)}"
        before = captured.handle.status().outputs
        session.run(None, {"input": np.eye(4, dtype=np.float32)[:, : session.get_inputs()[0].shape[1]]})
        captured.flush()
        after = captured.handle.status().outputs
    assert event.event_name == "ml.model.loaded"
    assert (event.attributes or {})["ml.output.kinds"] == f"label: {label}; probabilities: {scores}"
    assert before == {key: {"label": label, "probabilities": scores}}
    assert after[key]["probabilities"] == scores
    assert after[key]["label"].kind == "labels"


def test_what_rows_decide_replaces_what_the_file_left_open() -> None:
    with capture() as captured:
        session = ort.InferenceSession(doubtful("y"))
        captured.flush()
        (before,) = captured.handle.status().outputs.values()
        session.run(None, {"input": np.ones((2, 4), np.float32)})
        captured.flush()
        (after,) = captured.handle.status().outputs.values()
        (event,) = (event.log_record for event in captured.events if event.log_record.event_name == "ml.model.loaded")
    open_kind = OutputReport(kind="decided by the first rows", reason="no row shows its kind yet", graph="read")
    assert before == {"y": open_kind}
    assert (event.attributes or {})["ml.output.kinds"] == f"y: {open_kind}"
    assert after == {"y": OutputReport(kind="regression", reason="4 numbers without bounds or names", graph="read")}


def load(folder: Path, name: str, content: bytes) -> ort.InferenceSession:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return ort.InferenceSession(str(path))


def test_two_files_of_one_name_are_two_versions_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = [models.softmax(name=f"graph_{number}") for number in range(3)]
    first, second, third = map(models.digest_version, contents)
    with capture() as captured:
        sessions = [load(tmp_path / f"team-{number}", "churn.onnx", content) for number, content in enumerate(contents)]
        for _ in range(3):
            for count, session in enumerate(sessions, start=1):
                session.run(None, {"input": np.eye(4, dtype=np.float32)[:count]})
            captured.flush()
        counts: dict[object, int] = {}
        for point in captured.metrics()["ml.predictions"].data.data_points:
            attributes = point.attributes or {}
            version = (attributes["ml.model.name"], attributes["ml.model.version"])
            counts[version] = counts.get(version, 0) + getattr(point, "value", 0)
        assert set(captured.handle.status().outputs) == {f"churn/{version}" for version in (first, second, third)}
    assert counts == {("churn", first): 3, ("churn", second): 6, ("churn", third): 9}
    assert warnings_of(caplog) == [
        "Model churn, files: two files of different content have this name, and are reported as its versions "
        f"{first} and {second}. If they are two models, give each session its name: "
        "otel_mlmon.instrument(model_name=lambda session: ...)."
    ]


def test_a_reload_a_copy_and_a_name_of_the_applications_are_no_collision(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with capture(model_name=lambda session: "named" if "named" in session._model_path else "") as captured:
        sessions = [
            load(tmp_path / "a", "churn.onnx", models.softmax(name="graph_a")),
            load(tmp_path / "b", "churn.onnx", models.softmax(name="graph_a")),
        ]
        captured.flush()
        sessions.append(load(tmp_path / "a", "churn.onnx", models.softmax(name="graph_b")))
        captured.flush()
        sessions += [
            load(tmp_path / "named-1", "churn.onnx", models.softmax(name="graph_c")),
            load(tmp_path / "named-2", "churn.onnx", models.softmax(name="graph_d")),
            load(tmp_path / "c", "fraud.onnx", models.sigmoid(metadata={"version": "1"})),
            load(tmp_path / "d", "fraud.onnx", models.sigmoid(metadata={"version": "2"})),
        ]
        captured.flush()
    assert warnings_of(caplog) == []


def test_two_files_of_one_name_and_one_version_of_their_own_are_two_versions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {name: models.sigmoid(name=name, metadata={"version": "1"}) for name in ("a", "b")}
    with capture() as captured:
        sessions = [load(tmp_path / name, "fraud.onnx", content) for name, content in files.items()]
        for session in sessions[::-1]:  # the first that was loaded has the version, whichever is called first
            for _ in range(2 if session is sessions[0] else 3):
                session.run(None, {"input": np.zeros((1, 1), np.float32)})
        captured.flush()
        points: list[Any] = list(captured.metrics()["ml.inference.duration"].data.data_points)
    counts = {
        (point.attributes["ml.model.name"], point.attributes["ml.model.version"]): point.count for point in points
    }
    digest = hashlib.sha256(files["b"]).hexdigest()[:12]
    assert counts == {("fraud", "1"): 2, ("fraud", f"1+{digest}"): 3}
    assert warnings_of(caplog) == []
