"""`otel-mlmon reference export` against processors that run, and what other processors make of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import cli
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.service import Service, ServiceAddresses
from otel_mlmon.reference.embedding import find_embedded_profile, read_model_metadata
from otel_mlmon.reference.profile import Profile
from tests.support import models
from tests.support.otlp_requests import DELTA, counter, exponential, request
from tests.support.ports import free_port
from tests.support.processes import CLIENT, until

PANE_NS = 10_000_000_000
CALM = {"a": 40, "b": 30, "c": 20, "d": 10}
DRIFTED = {"a": 10, "b": 30, "c": 20, "d": 40}
LEARNED = 10
"""Panes: as many as a thousand predictions take."""


@contextmanager
def service(
    folder: Path, *, token: str = "", sections: Mapping[str, Any] | None = None, **reference: Any
) -> Iterator[ServiceAddresses]:
    """A processor that learns from a thousand predictions, unless it is told otherwise."""
    folder.mkdir()
    path = folder / "mlmon.yaml"
    document = {
        "receiver": {"grpc": "", "http": "127.0.0.1:0"},
        "storage": {"path": str(folder / "data"), "commit_interval": "1ms"},
        "web": {"listen": f"127.0.0.1:{free_port()}", "admin_token": token},
        "windows": {"pane": "10s", "lateness": "0s", "rolling": "5m"},
        "models": {"*": {"reference": {"learn": 1000, **reference}}},
        **(sections or {}),
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    running = Service(load_config(path, {}))
    try:
        yield running.start()
    finally:
        assert running.shutdown(10.0)


@pytest.fixture
def first_ns() -> int:
    """When the first pane begins: an hour ago or two."""
    return (time.time_ns() // (360 * PANE_NS) - 1) * 360 * PANE_NS


def pane(start_ns: int, labels: Mapping[str, int], *, version: str = "1", ages: int = 100) -> bytes:
    """What an application exports after a pane: a hundred predictions, and a feature that moves with the label d."""
    message = ExportMetricsServiceRequest()
    model = {"ml.model.name": "digits/small", "ml.model.version": version}
    add = partial(request, temporality=DELTA)
    for label, count in labels.items():
        attributes = {**model, "ml.prediction.label": label}
        message.MergeFrom(add("ml.predictions", "sum", counter(count), attributes=attributes))
    if ages:
        rng = np.random.default_rng(start_ns // PANE_NS % 360)
        index = np.clip(rng.normal(10 + labels["d"] / 10, 3, ages).astype(int), 0, 40)
        fill = exponential(2, (0, np.bincount(index).tolist()), sum=float((2.0 ** ((index + 0.5) / 4)).sum()))
        attributes = {**model, "ml.feature.name": "age"}
        message.MergeFrom(add("ml.input.feature", "exponential_histogram", fill, attributes=attributes))
    for of_resource in message.resource_metrics:
        (metric,) = of_resource.scope_metrics[0].metrics
        (point,) = getattr(metric, str(metric.WhichOneof("data"))).data_points
        point.start_time_unix_nano, point.time_unix_nano = start_ns, start_ns + PANE_NS
    return bytes(message.SerializeToString())


def send(addresses: ServiceAddresses, *panes: bytes) -> None:
    with httpx.Client(base_url=f"http://{addresses.http}", timeout=10, verify=False) as client:
        for body in panes:
            answer = client.post("/v1/metrics", content=body, headers={"content-type": "application/x-protobuf"})
            assert (answer.status_code, answer.content) == (200, b"")


def streams(addresses: ServiceAddresses, predictions: int) -> dict[str, dict[str, Any]]:
    """What is said of each stream once there were so many predictions."""

    def report() -> dict[str, Any] | None:
        answer = CLIENT.get(f"http://{addresses.web}/api/v1/models/digits%2Fsmall", timeout=10)
        document: dict[str, Any] = answer.json()
        return document if document.get("predictions") == predictions else None

    return {stream["stream"]: stream for stream in until(report, what=f"{predictions} predictions")["streams"]}


def export(addresses: ServiceAddresses, *words: str) -> int:
    assert addresses.web is not None
    return cli.main(["reference", "export", "digits/small", "--url", addresses.web, *words])


def test_another_processor_with_it_judges_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first_ns: int
) -> None:
    monkeypatch.chdir(tmp_path)
    panes = [pane(first_ns + number * PANE_NS, CALM if number < 40 else DRIFTED) for number in range(46)]
    with service(tmp_path / "first") as first:
        send(first, *panes[:LEARNED])
        assert {stream["origin"] for stream in streams(first, 100 * LEARNED).values()} == {"learned"}
        assert export(first) == 0
        assert capsys.readouterr() == ("digits/small 1: 2 streams: digits_small.reference.json\n", "")
        file = tmp_path / "digits_small.reference.json"
        Path("digits.onnx").write_bytes(models.softmax(classes=4))
        assert cli.main(["reference", "embed", str(file), "digits.onnx", "-o", "carrying.onnx"]) == 0
        assert capsys.readouterr() == ("carrying.onnx: carries the profile of digits/small 1\n", "")
        assert find_embedded_profile(read_model_metadata(Path("carrying.onnx").read_bytes())) == Profile.read_file(file)
        with service(tmp_path / "second", file=str(file)) as second:
            send(first, *panes[LEARNED:])
            send(second, *panes[LEARNED:])
            one, other = streams(first, 4600), streams(second, 3600)
            assert export(second, "-o", "again.json") == 0
    assert sorted(one) == ["input.age", "prediction.label"]
    for stream in one.values():
        assert (stream["state"], stream["reference_count"], stream["origin"]) == ("drift", 1000, "learned")
        assert (stream.pop("origin"), stream.pop("stationary")) == ("learned", True)
    for stream in other.values():
        assert (stream.pop("origin"), stream.pop("stationary")) == ("file", None)
    # A file tells numbers by their buckets only, and so their mean.
    mean, other_mean = (part["input.age"].pop("mean")["reference"] for part in (one, other))
    assert other_mean == pytest.approx(mean, rel=4e-3)
    assert one["input.age"].pop("changes")[1:] == other["input.age"].pop("changes")[1:]
    assert one == other
    # What was loaded from a file goes out as that file.
    assert Path("again.json").read_text() == file.read_text()


def test_what_moved_while_it_was_learned_is_said_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first_ns: int
) -> None:
    monkeypatch.chdir(tmp_path)
    warning = "Drifted while the reference was learned: prediction.label. Comparisons with it may raise false alarms.\n"
    with service(tmp_path / "data") as running:
        shares = [CALM] * 5 + [DRIFTED] * 15 + [{"a": 10, "b": 10, "c": 70, "d": 10}] * 20
        send(running, *(pane(first_ns + number * PANE_NS, labels, ages=0) for number, labels in enumerate(shares)))
        assert streams(running, 4000)["prediction.label"]["stationary"] is False
        assert export(running, "-o", "moved.json") == 0
    assert capsys.readouterr() == ("digits/small 1: 1 streams: moved.json\n", warning)
    assert cli.main(["reference", "show", "moved.json"]) == 0
    assert capsys.readouterr().out.endswith(warning)


def test_one_that_will_move_is_refused_before_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first_ns: int
) -> None:
    with service(tmp_path / "data", rolling="1h", lag="1h") as running:
        send(running, *(pane(first_ns + number * PANE_NS, CALM, ages=0) for number in range(LEARNED)))
        assert streams(running, 100 * LEARNED)["prediction.label"]["origin"] == "learned"
        assert export(running, "--partial", "-o", str(tmp_path / "none.json")) == 2
        assert capsys.readouterr().err == (
            f"otel-mlmon: http://{running.web}: The reference of model 'digits/small' moves with time "
            "(prediction.label) and cannot be exported.\n"
        )


def test_what_cannot_be_had_is_said_and_the_code_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first_ns: int
) -> None:
    monkeypatch.chdir(tmp_path)
    learns = "Model 'digits/small' is still learning its reference"

    def warning(addresses: ServiceAddresses, *words: str) -> str:
        assert export(addresses, *words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return err.removeprefix("otel-mlmon: ").removeprefix(f"http://{addresses.web}: ").rstrip("\n")

    with service(tmp_path / "data") as running:
        assert warning(running) == "There is no model 'digits/small'. No telemetry has arrived yet."
        send(running, pane(first_ns, CALM, ages=0))
        streams(running, 100)
        one = f"{learns}: prediction.label has 100 of 1000 values."
        assert warning(running) == f"{one} Use --partial for the streams that have a reference."
        assert warning(running, "--partial") == one
        send(running, *(pane(first_ns + number * PANE_NS, CALM, ages=1) for number in range(1, LEARNED)))
        streams(running, 100 * LEARNED)
        assert export(running, "--partial", "-o", "part.json") == 0
        assert capsys.readouterr() == (
            "digits/small 1: 1 streams: part.json\n",
            f"Left out. {learns}: input.age has 9 of 1000 values.\n",
        )
        assert list(Profile.read_file("part.json").streams) == ["prediction.label"]
        assert warning(running, "--model-version", "3") == "Model 'digits/small' has no version '3'. Known versions: 1."
        assert warning(running, "--partial", "-o", "none/x.json") == "none/x.json: No such file or directory"
        send(running, pane(first_ns + LEARNED * PANE_NS, CALM, version="2", ages=0))
        streams(running, 100)
        assert warning(running) == (
            "Model 'digits/small' has 2 versions: 1, 2. Choose one with the parameter version. "
            "In this command that is --model-version."
        )
        assert export(running, "--model-version", "1", "--partial") == 0
    assert Profile.read_file("digits_small.reference.json").version == "1"
