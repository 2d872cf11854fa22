"""Bounds, hostile content, and the digest."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper, save_model

from otel_mlmon.instrumentation.runtime.model_graph import LazyModelGraph, ModelGraph
from otel_mlmon.instrumentation.runtime.onnxruntime.graph import read, trace
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.read import (
    compute_model_digest,
    read_model_bytes,
    read_model_file,
)
from tests.support import models

MODEL = models.softmax()
BUDGET_S = 0.02


def deep_model(*nodes: Any, weights: int = 0, extra: int = 0) -> Any:
    body = [helper.make_node("Relu", ["x" if at == 0 else f"r{at - 1}"], [f"r{at}"]) for at in range(extra)]
    last = f"r{extra - 1}" if extra else "x"
    body += nodes or [helper.make_node("Softmax", [last], ["out"], axis=1)]
    tensors = [numpy_helper.from_array(np.random.default_rng(0).random(weights, "f4"), "w")] if weights else []
    graph = helper.make_graph(
        body,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def timed(path: Path) -> tuple[ModelGraph, float]:
    best = 1.0
    for _ in range(3):
        started_s = time.thread_time()
        graph = read_model_file(str(path), stamp=None, names=("out",))
        best = min(best, time.thread_time() - started_s)
    return graph, best


def test_a_large_file_costs_milliseconds_and_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sizes = tmp_path / "large.onnx", list[int]()
    path.write_bytes(deep_model(weights=50_000_000).SerializeToString())
    read_at = read._read_file_range

    def counted(file: Any, start: int, size: int) -> bytes:
        sizes.append(size)
        return read_at(file, start, size)

    graph, took_s = timed(path)
    monkeypatch.setattr(read, "_read_file_range", counted)
    read_model_file(str(path), stamp=None, names=("out",))
    assert (graph.state, graph.outputs["out"].role, graph.is_digest_complete) == ("read", "probabilities", False)
    assert took_s < BUDGET_S
    assert sum(sizes) < 3_000_000


def test_a_hundred_thousand_nodes_are_too_many_and_cost_no_more(tmp_path: Path) -> None:
    path = tmp_path / "deep.onnx"
    path.write_bytes(deep_model(extra=100_000).SerializeToString())
    graph, took_s = timed(path)
    assert (graph.state, dict(graph.outputs), len(graph.digest)) == ("too_large", {}, 64)
    assert took_s < BUDGET_S * 1.5


def test_a_digest_of_a_small_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL)
    graph = read_model_file(str(path), stamp=None, names=())
    assert (graph.digest, graph.is_digest_complete) == (hashlib.sha256(MODEL).hexdigest(), True)
    assert read_model_bytes(MODEL, names=()) == graph


@pytest.mark.parametrize("position", [0, 1 << 15, 9 << 20, (9 << 20) + 1])
def test_the_digest_of_a_large_one_covers_its_size_its_ends_and_blocks_between(position: int) -> None:
    content = bytes(range(256)) * (37 << 12)
    content = content[: (9 << 20) + 2]

    def digest(data: bytes) -> str:
        return compute_model_digest(lambda start, size: data[start : start + size], len(data))

    changed = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    assert len({digest(content), digest(changed), digest(content[:-1])}) == 3


def test_weights_beside_the_file_count_for_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = deep_model(weights=10_000)
    external_data_helper.convert_model_to_external_data(model, location="m.data", size_threshold=0)
    save_model(model, str(path))
    first = read_model_file(str(path), stamp=None, names=("out",))
    data = (tmp_path / "m.data").read_bytes()
    (tmp_path / "m.data").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    second = read_model_file(str(path), stamp=None, names=("out",))
    (tmp_path / "m.data").unlink()
    third = read_model_file(str(path), stamp=None, names=("out",))
    assert len({first.digest, second.digest, third.digest}) == 3
    assert (first.state, third.state, first.is_digest_complete) == ("read", "read", False)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_weights_elsewhere_are_not_opened(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    folder = tmp_path / "models"
    folder.mkdir()
    tensor = numpy_helper.from_array(np.zeros(3, "f4"), "w")
    external_data_helper.set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    model = deep_model()
    model.graph.initializer.append(tensor)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    first = read_model_file(str(folder / "m.onnx"), stamp=None, names=("out",))
    (tmp_path / "secret").write_bytes(b"2")
    assert read_model_file(str(folder / "m.onnx"), stamp=None, names=("out",)) == first


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (b"", "unreadable"),
        (b"\x18\x00\x00\x00ORTM" + bytes(100), "ort_format"),
        (bytes(range(255, -1, -1)) * 40, "unreadable"),
        (MODEL[:-1], "unreadable"),
        (MODEL[: len(MODEL) // 2], "unreadable"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "unreadable"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "unreadable"),
        (b"\x08\x08", "unreadable"),
        (b"\x0b\x0c", "unreadable"),
    ],
)
def test_what_is_no_model_has_a_word_and_a_digest(content: bytes, state: str) -> None:
    assert read_model_bytes(content, names=("out",)) == ModelGraph(
        state=state,  # type: ignore[arg-type]
        digest=hashlib.sha256(content).hexdigest(),
        is_digest_complete=True,
    )


def test_a_file_of_other_outputs_is_another_model() -> None:
    assert read_model_bytes(MODEL, names=("elsewhere",)).state == "missing"


@pytest.mark.parametrize("path", ["/nowhere/model.onnx", "/proc/self", "a\0b"])
def test_a_file_that_cannot_be_opened_is_missing(path: str) -> None:
    assert read_model_file(path, stamp=None, names=()) == ModelGraph(state="missing")


def test_a_node_that_refers_to_itself_ends() -> None:
    model = deep_model(helper.make_node("Identity", ["out"], ["out"]))
    assert read_model_bytes(model.SerializeToString(), names=("out",)).outputs["out"].role == "unknown"


def test_graphs_inside_graphs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(depth: int) -> Any:
        value = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])
        body = helper.make_node("Sigmoid", ["x"], ["b"])
        if depth:
            body = helper.make_node("If", ["x"], ["b"], then_branch=nested(depth - 1), else_branch=nested(0))
        return helper.make_graph([body], f"g{depth}", [], [value])

    def role(depth: int) -> str:
        last = helper.make_node("If", ["x"], ["out"], then_branch=nested(depth), else_branch=nested(0))
        return read_model_bytes(deep_model(last).SerializeToString(), names=("out",)).outputs["out"].role

    assert (role(3), role(12)) == ("sigmoid", "sigmoid")
    monkeypatch.setattr(trace, "MAX_DEPTH", 6)
    assert (role(3), role(12)) == ("sigmoid", "unknown")


def test_a_reader_that_fails_is_asked_once() -> None:
    asked = list[int]()

    def fail() -> ModelGraph:
        asked.append(1)
        return ModelGraph(state="missing")

    graph = LazyModelGraph(fail)
    assert (graph.known, graph(), graph(), asked) == (None, graph.known, graph.known, [1])


SOURCES = [MODEL, models.text_labels(), models.labelled(), models.image()]


@settings(max_examples=400, deadline=None)
@given(
    source=st.sampled_from(SOURCES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    cut=st.floats(0.2, 1),
)
def test_damaged_models_never_raise(source: bytes, changes: list[tuple[float, int]], cut: float) -> None:
    content = bytearray(source)
    for place, value in changes:
        content[int(place * len(content))] = value
    graph = read_model_bytes(bytes(content[: int(len(content) * cut)]), names=())
    assert graph.state in {"read", "unreadable", "too_large", "ort_format"}
