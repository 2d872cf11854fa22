from __future__ import annotations

import dataclasses

import pytest

from otel_mlmon.instrumentation.decode.model_identity import (
    ModelIdentity,
    identify_model,
    name_model_by_file,
    read_class_names,
    read_file_stem,
)
from otel_mlmon.instrumentation.runtime.call import UNKNOWN_VERSION, SessionInfo
from otel_mlmon.instrumentation.runtime.model_graph import NO_LAZY_GRAPH, LazyModelGraph, ModelGraph
from otel_mlmon.types import ModelKey

SESSION = SessionInfo(
    model_name="given",
    path="/secret/dir/Iris v2.onnx",
    graph=LazyModelGraph(lambda: ModelGraph(state="read", digest="0123456789abcdef")),
    graph_name="fraud_net",
    version=UNKNOWN_VERSION,
    metadata={"model_name": "meta"},
    provider="CPUExecutionProvider",
    runtime_version="1",
)


def test_the_name_argument_then_metadata_then_file_then_graph_then_hash() -> None:
    steps = [
        {},
        {"model_name": ""},
        {"metadata": {}},
        {"path": ""},
        {"graph_name": "torch_jit"},
        {"graph": NO_LAZY_GRAPH},
    ]
    info, names = SESSION, []
    for step in steps:
        info = dataclasses.replace(info, **step)  # type: ignore[arg-type]
        names.append(identify_model(info).name)
    assert names == ["given", "meta", "Iris v2", "fraud_net", "model-0123456789ab", "model-unknown"]


@pytest.mark.parametrize("graph", ["main_graph", "torch-jit-export", "", "graph", "tf2onnx", "3f" * 16])
def test_graph_names_of_exporters_say_nothing(graph: str) -> None:
    info = dataclasses.replace(SESSION, model_name="", metadata={}, path="", graph_name=graph)
    assert identify_model(info).name == "model-0123456789ab"


def test_the_version_argument_then_metadata_then_model() -> None:
    assert identify_model(dataclasses.replace(SESSION, graph=NO_LAZY_GRAPH)).version == ""
    assert identify_model(dataclasses.replace(SESSION, version=3)).version == "3"
    said = dataclasses.replace(SESSION, version=3, metadata={"version": "1.2"})
    assert identify_model(said).version == "1.2"
    assert identify_model(said, version="9").version == "9"


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
    assert read_class_names({"names": text}) == names


def test_class_names_by_any_key_and_none_from_text_too_long() -> None:
    for key in ("names", "classes", "labels", "class_names", "id2label", "character"):
        assert read_class_names({key: "a,b"}) == ("a", "b")
    assert read_class_names({"names": "a," * 500_001}) == ()


def test_texts_are_cut_to_128_characters() -> None:
    info = dataclasses.replace(SESSION, model_name="n" * 129, metadata={"version": "v" * 129})
    assert (identify_model(info).name, identify_model(info).version) == ("n" * 128, "v" * 128)
    assert read_class_names({"names": f'["{"a" * 129}", "b"]'}) == ("a" * 128, "b")
    assert read_class_names({"names": f"{'a' * 129},b"}) == ("a" * 128, "b")


def test_blank_texts_count_as_none() -> None:
    info = dataclasses.replace(
        SESSION,
        model_name="  ",
        metadata={"model_name": " ", "name": " second ", "model_version": " ", "version": " 2 "},
    )
    assert (identify_model(info).name, identify_model(info).version) == ("second", "2")


@pytest.mark.parametrize(
    ("reported", "declared", "version"),
    [(" 3 ", "9", "3"), ("", "9", "9"), (" ", "", "2"), ("x" * 200, "9", "x" * 128)],
)
def test_the_version_that_calls_report_comes_before_the_declared_one_and_the_models(
    reported: str, declared: str, version: str
) -> None:
    session = dataclasses.replace(SESSION, model_version=reported, metadata={"version": "2"})
    assert identify_model(session, version=declared).version == version


def test_the_identity_has_everything_that_signals_say() -> None:
    identity = identify_model(dataclasses.replace(SESSION, version=3))
    assert identity == ModelIdentity(
        name="given", version="3", provider="CPUExecutionProvider", runtime_version="1", runtime_name="onnxruntime"
    )
    assert identity.model_key == ModelKey("given", "3")
    assert identity.runtime_attributes == {
        "ml.runtime.name": "onnxruntime",
        "ml.runtime.version": "1",
        "ml.execution_provider": "CPUExecutionProvider",
    }
    bare = dataclasses.replace(identity, provider="", runtime_version="")
    assert bare.runtime_attributes == {"ml.runtime.name": "onnxruntime"}


@pytest.mark.parametrize(
    ("path", "name"),
    [("C:\\models\\fraud.v2.onnx", "fraud.v2"), ("/a/b/fraud", "fraud"), ("fraud.onnx", "fraud"), ("", "")],
)
def test_the_stem_of_a_path(path: str, name: str) -> None:
    assert read_file_stem(path) == name


@pytest.mark.parametrize("graph", ["fraud", "main_graph_2", "my graph", f"{'3f' * 15}", "models", "graph1"])
def test_graph_names_that_say_something(graph: str) -> None:
    info = dataclasses.replace(SESSION, model_name="", metadata={}, path="", graph_name=f" {graph} ")
    assert identify_model(info).name == graph


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"0": "a", "2": "b"}', ()),
        ('{"a": 0}', ()),
        ('{"0": ["a"]}', ()),
        ("{0: 'a', '0': 'b'}", ("b",)),
        ('["a", 1.5]', ()),
        ("(1, 2", ()),
        ("7", ()),
        ('"a"', ()),
        ("a\nb", ("a", "b")),
        ("a\n\nb", ()),
        ("a\n", ()),
        (" [not a list", ()),
        ("a , b ", ("a", "b")),
        (" {0: 'a', 1: 'b'}", ("a", "b")),
        ("('a', 'b')", ("a", "b")),
        ("'a', \"b\"", ("a", "b")),
        ("u'a', 'b'", ("a", "b")),
        ("1, 2", ("1", "2")),
    ],
)
def test_texts_of_class_names(text: str, names: tuple[str, ...]) -> None:
    assert read_class_names({"names": text}) == names


def test_the_first_key_that_names_classes_counts_and_a_million_characters_are_read() -> None:
    assert read_class_names({"names": "nothing", "classes": "a,b", "labels": "c,d"}) == ("a", "b")
    text = "a," * 499_999 + "bb"
    assert (len(text), len(read_class_names({"names": text}))) == (1_000_000, 500_000)
    assert read_class_names({"names": text + "b", "labels": "a,b"}) == ("a", "b")


@pytest.mark.parametrize("version", [UNKNOWN_VERSION, 0, -1])
def test_a_version_that_nobody_set_is_the_digest(version: int) -> None:
    assert identify_model(dataclasses.replace(SESSION, version=version)).version == "0123456789ab"


def test_on_the_hosts_thread_no_file_is_read() -> None:
    session = dataclasses.replace(
        SESSION, model_name="", metadata={}, path="", graph_name="",
        graph=LazyModelGraph(lambda: ModelGraph(state="read", digest="0123456789abcdef")),
    )  # fmt: skip
    before = identify_model(session, may_read=False)
    read = identify_model(session)
    assert (before.name, before.version) == ("model-unknown", "")
    assert (read.name, read.version) == ("model-0123456789ab", "0123456789ab")
    assert identify_model(session, may_read=False) == read


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/churn/model.onnx", "churn-model"),
        ("/srv/fraud/Model.onnx", "fraud-Model"),
        ("C:\\ml\\churn\\best.onnx", "churn-best"),
        ("/models/churn/1/model.onnx", "churn-model"),
        ("/models/churn/v12/onnx/model_quantized.onnx", "churn-model_quantized"),
        ("/hub/models--org--bert-tiny/snapshots/3f2a9c1b44d0/onnx/model.onnx", "bert-tiny-model"),
        ("runs/detect/train/weights/last.onnx", "detect-last"),
        ("/srv/churn.onnx", "churn"),
        ("/srv/best_churn.onnx", "best_churn"),
        ("/" + "home/alice/model.onnx", ""),
        ("/Users/alice/export/model.onnx", ""),
        ("/tmp/tmpab12cd34/model.onnx", ""),
        ("/model.onnx", ""),
        ("model.onnx", ""),
        ("/srv/3f2a9c1b44d0", ""),
        ("", ""),
    ],
)
def test_a_file_whose_name_says_nothing_takes_its_folder(path: str, name: str) -> None:
    assert name_model_by_file(path) == name


@pytest.mark.parametrize(
    ("path", "graph", "name"),
    [
        ("/app/model.onnx", "fraud_net", "fraud_net"),
        ("/app/model.onnx", "main_graph", "app-model"),
        ("/tmp/tmpab12cd34/model.onnx", "main_graph", "model-0123456789ab"),
        ("/model.onnx", "", "model-0123456789ab"),
    ],
)
def test_where_folders_say_nothing_the_graph_then_the_folder_then_the_digest(path: str, graph: str, name: str) -> None:
    session = dataclasses.replace(SESSION, model_name="", metadata={}, path=path, graph_name=graph)
    assert identify_model(session).name == name
