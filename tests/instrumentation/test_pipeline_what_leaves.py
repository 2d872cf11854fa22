"""Secrets go through every kind of input, output, exception and option; no byte that leaves holds one."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

import otel_mlmon
from otel_mlmon.testing import Captured, capture
from tests.support import models

NAMES = ["Ada Lovelace", "ada@example.test", "4111 1111 1111 1111", "+49 170 0000000", "Straße 12 — «Hof»", "Ω\u2028x"]
NUMBERS = [52_340.75, 48_151_623.0, -1_234.5678, 1e-7 / 3]
CUSTOMER = 48_151_623


def leaving(captured: Captured) -> bytes:
    captured.flush()
    data = captured._reader.get_metrics_data()
    parts = [
        encode_spans(captured.spans).SerializeToString(),
        encode_logs(captured.events).SerializeToString(),
        encode_metrics(data).SerializeToString() if data is not None else b"",
    ]
    return b"".join(parts)


def needles() -> dict[str, bytes]:
    texts = {text: text.encode() for text in NAMES}
    escaped = {f"{text} in JSON": json.dumps(text).strip('"').encode() for text in NAMES}
    packed = {f"{number} as {code}": struct.pack(code, number) for number in NUMBERS for code in ("<d", "<f")}
    sums = {f"ten times {number}": struct.pack("<d", 10 * number) for number in NUMBERS}
    return {**texts, **escaped, **packed, **sums, "customer": str(CUSTOMER).encode(), "path": b"hospital-records"}


def assert_nothing_leaves(captured: Captured) -> None:
    content = leaving(captured)
    assert len(content) > 500
    assert [name for name, needle in needles().items() if needle in content] == []


def test_texts_and_numbers_as_inputs_and_as_outputs(tmp_path: Path) -> None:
    folder = tmp_path / "hospital-records"
    folder.mkdir()
    path = folder / "notes.onnx"
    path.write_bytes(models.strings())
    with capture(min_new_values=10) as captured:
        session = onnxruntime.InferenceSession(str(path))
        for call in range(120):
            word = np.array([[NAMES[call % len(NAMES)]]], dtype=object)
            number = np.array([[NUMBERS[call % len(NUMBERS)]]], dtype=np.float32)
            session.run(None, {"word": word, "number": number})
        labels = onnxruntime.InferenceSession(models.identity("N", name="reply", output="label", dtype=8))
        ids = onnxruntime.InferenceSession(models.identity("N", name="who", output="label", dtype=7))
        values = onnxruntime.InferenceSession(models.identity("N", 1, name="salary", output="price", dtype=11))
        for call in range(120):
            labels.run(None, {"input": np.array([NAMES[call % len(NAMES)]], dtype=object)})
            ids.run(None, {"input": np.array([CUSTOMER], dtype=np.int64)})
            values.run(None, {"input": np.array([[NUMBERS[0]]])})
        assert_nothing_leaves(captured)


def test_one_call_of_one_person(tmp_path: Path) -> None:
    with capture(min_new_values=10) as captured:
        session = onnxruntime.InferenceSession(models.identity("N", 1, name="salary", output="price", dtype=11))
        for number in NUMBERS:
            session.run(None, {"input": np.array([[number]])})
        assert_nothing_leaves(captured)
        assert "ml.input.feature" not in captured.metrics()


def test_observed_features_and_large_numbers_as_labels() -> None:
    with capture(min_new_values=10) as captured:
        for call in range(60):
            features: dict[str, Any] = {
                "name": NAMES[call % len(NAMES)],
                "income": NUMBERS[call % len(NUMBERS)],
                "batch": NAMES,
                "unreadable": object(),
            }
            otel_mlmon.observe("loan", label=CUSTOMER, value=NUMBERS[0], features=features)
        assert_nothing_leaves(captured)


@pytest.mark.parametrize("error", [ValueError, KeyError, UnicodeError])
def test_exceptions_that_carry_what_a_person_said(error: type[Exception]) -> None:
    with capture() as captured:
        for text in NAMES:
            observation = otel_mlmon.observe("notes")
            assert observation is not None
            with pytest.raises(error), observation:
                raise error(text)
        session = onnxruntime.InferenceSession(models.softmax())
        for text in NAMES:
            with pytest.raises(Exception, match=r"\S"):
                session.run(None, {text: np.zeros((1, 4), np.float32)})
            with pytest.raises(Exception, match=r"\S"):
                session.run([text], {"input": np.zeros((1, 4), np.float32)})
        assert_nothing_leaves(captured)


def test_options_that_are_secret(tmp_path: Path) -> None:
    key = NAMES[0]
    with capture(text_key=key, models={"strings": otel_mlmon.ModelOptions(text_key=NAMES[1])}) as captured:
        session = onnxruntime.InferenceSession(models.strings())
        for _ in range(20):
            session.run(None, {"word": np.array([["x"]], dtype=object), "number": np.zeros((1, 1), np.float32)})
        assert_nothing_leaves(captured)
        assert key not in repr(captured.handle.status())


def test_metadata_that_says_nothing_of_classes_stays() -> None:
    with capture() as captured:
        metadata = {"author": NAMES[0], "dataset": "hospital-records", "note": NAMES[4]}
        session = onnxruntime.InferenceSession(models.softmax(metadata=metadata))
        session.run(None, {"input": np.zeros((1, 4), np.float32)})
        assert_nothing_leaves(captured)


def test_the_search_finds_what_a_developer_lets_leave() -> None:
    with capture(text="keep") as captured:
        session = onnxruntime.InferenceSession(models.identity("N", name="reply", output="label", dtype=8))
        session.run(None, {"input": np.array([NAMES[1]], dtype=object)})
        assert NAMES[1].encode() in leaving(captured)
