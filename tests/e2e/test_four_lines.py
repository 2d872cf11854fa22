"""A program of four lines, and an OTLP server that is not ours: oteltap, whose receiver is written in Rust."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from tests.support.ports import free_port
from tests.support.processes import DEADLINE_S, run_python

pytestmark = pytest.mark.e2e

PROGRAM = """\
import otel_mlmon, onnxruntime, numpy
otel_mlmon.instrument()
session = onnxruntime.InferenceSession({model!r})
session.run(None, {{"image": numpy.full((1, 1, 8, 8), 0.5, dtype="float32")}})
"""


WANTED = ("ml.inference.duration", "ml.predictions", "ml.prediction.confidence")


def named(name: str) -> Callable[[Any], bool]:
    return lambda metric: bool(metric.name == name)


def attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    """Attributes by name; of a value, the field that is set."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


async def received(program: Path) -> tuple[Any, dict[str, Any], Any]:
    """The span, the metrics by name and the event that the program sends."""
    port = free_port()
    settings = OtelTapHttpProtobufReceiverSettings(http_port=port)
    async with OtelTapHttpProtobufReceiver(settings) as tap:
        waiting: asyncio.Future[list[Any]] = asyncio.gather(
            tap.await_trace(lambda span: span.name.startswith("predict "), DEADLINE_S),
            tap.await_log(lambda record: record.event_name == "ml.prediction", DEADLINE_S),
            *(tap.await_metric(named(name), DEADLINE_S) for name in WANTED),
        )
        done = await asyncio.to_thread(
            run_python,
            [str(program)],
            cwd=program.parent,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_MLMON_SHUTDOWN_TIMEOUT_S="20",  # a busy machine imports the exporters in seconds
            OTEL_SERVICE_NAME="four-lines",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        span, event, *metrics = await waiting
        return span, {metric.name: metric for metric in metrics}, event


def test_four_lines_send_spans_metrics_and_the_prediction_log(tmp_path: Path) -> None:
    program = tmp_path / "four_lines.py"
    program.write_text(PROGRAM.format(model=str(files("otel_mlmon.demo") / "digits.onnx")), encoding="utf-8")
    span, metrics, event = asyncio.run(received(program))

    said = attributes(span.attributes)
    assert span.name == "predict digits"
    assert 0 < said["ml.inference.duration"] < 10
    assert 0.1 <= said["ml.prediction.confidence"] <= 1
    assert said["ml.model.name"] == "digits"
    assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(
        said["ml.inference.duration"] * 1e9, abs=2
    )

    (duration,) = metrics["ml.inference.duration"].histogram.data_points
    assert (duration.count, metrics["ml.inference.duration"].unit) == (1, "s")
    assert list(duration.explicit_bounds)[:3] == [1e-05, 2.5e-05, 5e-05]
    (prediction,) = metrics["ml.predictions"].sum.data_points
    assert prediction.as_int == 1
    assert attributes(prediction.attributes) == {
        "ml.model.name": "digits",
        "ml.model.version": said["ml.model.version"],
        "ml.prediction.label": said["ml.prediction.label"],
    }
    (confidence,) = metrics["ml.prediction.confidence"].histogram.data_points
    assert confidence.sum == pytest.approx(said["ml.prediction.confidence"])

    assert attributes(event.attributes)["ml.prediction.label"] == said["ml.prediction.label"]
    assert event.trace_id == span.trace_id
