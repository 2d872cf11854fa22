from __future__ import annotations

import dataclasses

import pytest

from otel_mlmon.instrumentation.decode.model_identity import class_names, identify
from otel_mlmon.instrumentation.runtime.call import UNKNOWN_VERSION, SessionInfo

SAID = SessionInfo(
    model_name="given",
    path="/secret/dir/Iris v2.onnx",
    digest="0123456789abcdef",
    graph_name="fraud_net",
    version=UNKNOWN_VERSION,
    metadata={"model_name": "meta"},
    provider="CPUExecutionProvider",
    runtime_version="1",
)


def test_the_name_argument_then_metadata_then_file_then_graph_then_hash() -> None:
    steps = [{}, {"model_name": ""}, {"metadata": {}}, {"path": ""}, {"graph_name": "torch_jit"}, {"digest": ""}]
    info, names = SAID, []
    for step in steps:
        info = dataclasses.replace(info, **step)  # type: ignore[arg-type]
        names.append(identify(info).name)
    assert names == ["given", "meta", "Iris v2", "fraud_net", "model-0123456789ab", "model-unknown"]


@pytest.mark.parametrize("graph", ["main_graph", "torch-jit-export", "", "graph", "tf2onnx", "3f" * 16])
def test_graph_names_of_exporters_say_nothing(graph: str) -> None:
    info = dataclasses.replace(SAID, model_name="", metadata={}, path="", graph_name=graph)
    assert identify(info).name == "model-0123456789ab"


def test_the_version_argument_then_metadata_then_model() -> None:
    assert identify(SAID).version == ""
    assert identify(dataclasses.replace(SAID, version=3)).version == "3"
    said = dataclasses.replace(SAID, version=3, metadata={"version": "1.2"})
    assert identify(said).version == "1.2"
    assert identify(said, version="9").version == "9"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a", "b"]', ("a", "b")),
        ("{0: 'cat', 1: 'dog'}", ("cat", "dog")),
        ('{"1": "dog", "0": "cat"}', ("cat", "dog")),
        ("('a', 2)", ("a", "2")),
        ("{1: 'a'}", ()),
        ("__import__('os')", ()),
        ("[[1], [2]]", ()),
        ("cat, dog", ("cat", "dog")),
        ("cat\r\ndog\r\n", ("cat", "dog")),
        ("a\n,\n \n", ("a", ",", " ")),
        ("cat,,dog", ()),
        ("cat", ()),
        ("['a', unquoted]", ()),
        ("", ()),
    ],
)
def test_class_names(text: str, names: tuple[str, ...]) -> None:
    assert class_names({"names": text}) == names


def test_class_names_by_any_key_and_none_from_text_too_long() -> None:
    for key in ("names", "classes", "labels", "class_names", "id2label", "character"):
        assert class_names({key: "a,b"}) == ("a", "b")
    assert class_names({"names": "a," * 500_001}) == ()
