from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

from otel_mlmon import ModelOptions, semconv
from otel_mlmon.instrumentation.aggregate.aggregator import PredictionAggregator
from otel_mlmon.instrumentation.decode.batch import CHUNK_CALLS
from otel_mlmon.instrumentation.decode.decoder import TensorDecoder
from otel_mlmon.instrumentation.export.events import EventWriter
from otel_mlmon.instrumentation.export.metrics import MetricWriter
from otel_mlmon.instrumentation.export.spans import SpanWriter
from otel_mlmon.instrumentation.pipeline import InstrumentationPipeline
from otel_mlmon.testing import Captured, capture
from otel_mlmon.vocabulary import TextBuckets, split_bucket_label
from tests.support import models

Points = dict[tuple[tuple[str, Any], ...], Any]


def raw_points(captured: Captured, name: str) -> list[tuple[tuple[tuple[str, Any], ...], Any]]:
    """Attributes and data points of one metric."""
    metric = captured.metrics().get(name)
    return [(tuple(sorted((p.attributes or {}).items())), p) for p in (metric.data.data_points if metric else [])]


VERSION_OF_NONE = re.compile("[0-9a-f]{12}")


def points(captured: Captured, name: str) -> Points:
    """Data points of one metric by their attributes; the value of a counter, the point itself of a histogram."""
    return {key: getattr(p, "value", p) for key, p in raw_points(captured, name)}


def points_without_digest(captured: Captured, name: str) -> Points:
    """Data points of one metric by their attributes, but the version of a model that has none of its own."""
    return {
        tuple(pair for pair in key if pair[0] != "ml.model.version"): point
        for key, point in points(captured, name).items()
        if VERSION_OF_NONE.fullmatch(dict(key)["ml.model.version"])
    }


def floats(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


MODEL = ("ml.model.name", "iris")


def test_golden_metrics_of_a_classifier() -> None:
    session = ort.InferenceSession(models.softmax(classes=3, name="iris", metadata={"names": '["a", "b", "c"]'}))
    with capture() as captured:
        session.run(None, {"input": floats([9, 0, 0])})
        session.run(None, {"input": floats([0, 9, 0], [9, 0, np.nan])})
        with pytest.raises(Exception, match="Got invalid dimensions"):
            session.run(None, {"input": floats([1, 2])})
        got = captured.metrics()
        assert {name: metric.unit for name, metric in got.items()} == {
            "ml.inference.duration": "s",
            "ml.inference.batch.size": "{sample}",
            "ml.predictions": "{prediction}",
            "ml.prediction.uncounted": "{prediction}",
            "ml.prediction.confidence": "1",
            "ml.input.feature": "1",
            "ml.input.missing": "{value}",
            "ml.input.samples": "{sample}",
            "ml.sessions.active": "{session}",
        }
        durations = points_without_digest(captured, "ml.inference.duration")
        failed = (("error.type", "InvalidArgument"), MODEL)
        assert {key: point.count for key, point in durations.items()} == {(MODEL,): 2, failed: 1}
        assert durations[(MODEL,)].explicit_bounds == semconv.DURATION_BOUNDS_S
        assert points_without_digest(captured, "ml.predictions") == {
            (MODEL, ("ml.prediction.label", "a")): 1,
            (MODEL, ("ml.prediction.label", "b")): 1,
        }
        confidence = points_without_digest(captured, "ml.prediction.confidence")[(MODEL,)]
        assert confidence.explicit_bounds == semconv.CONFIDENCE_BOUNDS
        assert (confidence.count, confidence.bucket_counts[-2:]) == (2, (0, 2))
        batch = points_without_digest(captured, "ml.inference.batch.size")[(MODEL,)]
        assert (batch.count, batch.sum, batch.min, batch.max) == (2, 3.0, 1.0, 2.0)
        assert points_without_digest(captured, "ml.input.samples") == {(MODEL,): 3}
        assert points_without_digest(captured, "ml.input.missing") == {(("ml.feature.name", "f2"), MODEL): 1}
        features = points_without_digest(captured, "ml.input.feature")
        # Buckets only: no extremes, and the sum as of the buckets' middles.
        assert {key[0][1]: (p.count, p.sum, p.min, p.max) for key, p in features.items()} == {
            "f0": (3, pytest.approx(18.0, rel=4e-4), math.inf, -math.inf),
            "f1": (3, pytest.approx(9.0, rel=4e-4), math.inf, -math.inf),
            "f2": (2, 0.0, math.inf, -math.inf),
        }
        assert points_without_digest(captured, "ml.sessions.active") == {(MODEL,): 1}


def test_golden_span_and_event() -> None:
    session = ort.InferenceSession(models.softmax(classes=2, name="iris", version=7))
    with capture() as captured:
        tracer = captured.tracer_provider.get_tracer("host")
        with tracer.start_as_current_span("request") as parent:
            session.run(None, {"input": floats([3, 0])})
        captured.flush()
        (span,) = [found for found in captured.spans if found.name == "predict iris"]
        assert span.attributes is not None
        attributes = dict(span.attributes)
        duration = attributes.pop("ml.inference.duration")
        assert span.end_time is not None
        assert span.start_time is not None
        assert isinstance(duration, float)
        assert span.end_time - span.start_time == round(duration * 1e9)
        confidence = attributes.pop("ml.prediction.confidence")
        assert confidence == pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-6)
        assert attributes == {
            "ml.model.name": "iris",
            "ml.model.version": "7",
            "ml.runtime.name": "onnxruntime",
            "ml.runtime.version": ort.__version__,
            "ml.execution_provider": "CPUExecutionProvider",
            "ml.operation.name": "run",
            "ml.batch.size": 1,
            "ml.prediction.label": "0",
        }
        assert span.kind is trace.SpanKind.INTERNAL
        assert span.parent is not None
        assert span.parent.span_id == parent.get_span_context().span_id
        (record,) = [found.log_record for found in captured.events if found.log_record.event_name == "ml.prediction"]
        assert record.severity_text == "INFO"
        assert span.context is not None
        assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
        said = dict(record.attributes or {})
        assert len(str(said.pop("ml.prediction.id"))) == 32
        assert set(said) == {
            "ml.model.name", "ml.model.version", "ml.inference.duration", "ml.batch.size",
            "ml.prediction.label", "ml.prediction.confidence", "ml.sampling.reason", "ml.sampling.probability",
        }  # fmt: skip


def test_a_failed_call_has_a_span_with_error_and_no_message() -> None:
    session = ort.InferenceSession(models.softmax(name="iris"))
    with capture(span_ratio=0.0) as captured:
        session.run(None, {"input": floats([9, 0, 0, 0])})
        with pytest.raises(Exception, match="invalid dimensions"):
            session.run(None, {"input": floats([1])})
        captured.flush()
        (span,) = captured.spans
        assert span.attributes is not None
        assert span.attributes["error.type"] == "InvalidArgument"
        assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())


def test_unsure_calls_get_spans_beyond_the_ratio_and_confident_ones_do_not() -> None:
    session = ort.InferenceSession(models.softmax(classes=3, name="iris"))
    with capture(span_ratio=0.0, confidence_floor=0.5) as captured:
        session.run(None, {"input": floats([9, 0, 0])})
        session.run(None, {"input": floats([0.1, 0, 0])})
        captured.flush()
        assert [dict(span.attributes or {})["ml.prediction.label"] for span in captured.spans] == ["0"]


def test_label_from_one_output_and_confidence_from_the_other() -> None:
    session = ort.InferenceSession(models.labelled())
    text = ort.InferenceSession(models.text_labels())
    with capture() as captured:
        session.run(None, {"input": floats([0, 0, 4], [4, 0, 0])})
        text.run(None, {"input": floats([0, 4, 0])})
        counts = points(captured, "ml.predictions")
        assert {(dict(key)["ml.model.name"], dict(key)["ml.prediction.label"]): n for key, n in counts.items()} == {
            ("labelled", "0"): 1,
            ("labelled", "2"): 1,
            ("text_labels", "bee"): 1,
        }
        expected = float(np.exp(4) / (np.exp(4) + 2))
        found = points(captured, "ml.prediction.confidence")
        assert {dict(key)["ml.model.name"]: (p.count, p.min) for key, p in found.items()} == {
            "labelled": (2, pytest.approx(expected)),
            "text_labels": (1, pytest.approx(expected)),
        }


def test_regression_sigmoid_images_and_words() -> None:
    with capture() as captured:
        ort.InferenceSession(models.regression()).run(None, {"input": floats([-3, 1], [2, 5])})
        ort.InferenceSession(models.sigmoid()).run(None, {"input": floats([2], [-2], [3])})
        ort.InferenceSession(models.image(channels=3)).run(None, {"image": np.full((2, 3, 8, 8), 0.5, np.float32)})
        words = ort.InferenceSession(models.strings())
        for _ in range(5):
            words.run(
                ["value"],
                {"word": np.array([["red"], ["secret@example.org"]], dtype=object)[:1], "number": floats([1])},
            )
        words.run(["value"], {"word": np.array([["secret@example.org"]], dtype=object), "number": floats([1])})
        value = points_without_digest(captured, "ml.prediction.value")[(("ml.model.name", "price"),)]
        assert (value.count, value.min, value.max) == (2, math.inf, -math.inf)
        assert value.sum == pytest.approx(5.0, rel=1e-3)
        labels = {key: n for key, n in points(captured, "ml.predictions").items() if "sigmoid" in str(key)}
        assert {dict(key)["ml.prediction.label"]: n for key, n in labels.items()} == {"1": 2, "0": 1}
        image = {dict(key)["ml.feature.name"]: p.sum for key, p in points(captured, "ml.input.feature").items()}
        expected = {
            "image.brightness": 1.0, "image.contrast": 0.0, "image.width": 16.0, "image.height": 16.0,
            "image.aspect_ratio": 2.0, "image.channel_0": 1.0, "image.channel_1": 1.0, "image.channel_2": 1.0,
        }  # fmt: skip
        assert {name: image[name] for name in expected} == pytest.approx(expected, rel=4e-4)
        categories = points(captured, "ml.input.category")
        (name,) = {dict(key)["ml.model.name"] for key in categories}
        assert {dict(key)["ml.feature.value"]: n for key, n in categories.items()} == {
            split_bucket_label(TextBuckets(key="", model=name).assign_bucket(text))[0]: count
            for text, count in (("red", 5), ("secret@example.org", 1))
        }


def test_the_developers_word_wins() -> None:
    said = ModelOptions(output_kind="logits", labels=["no", "yes"], version="3", features=["x", "y"])
    session = ort.InferenceSession(models.softmax(classes=2, name="iris"))
    with capture(models={"iris": said}) as captured:
        session.run(None, {"input": floats([0, 5])})
        key = (MODEL, ("ml.model.version", "3"), ("ml.prediction.label", "yes"))
        assert points(captured, "ml.predictions") == {key: 1}
        assert {dict(k)["ml.feature.name"] for k in points(captured, "ml.input.feature")} == {"x", "y"}


def test_suppressed_calls_leave_nothing() -> None:
    session = ort.InferenceSession(models.classifier())
    with capture() as captured:
        with suppress_instrumentation():
            session.run(None, {"input": np.zeros((1, 10), np.float32)})
        captured.flush()
        assert (captured.spans, captured.events, points(captured, "ml.inference.duration")) == ((), (), {})
        assert captured.handle.status().suppressed_calls == 1


def test_calls_are_recorded_or_dropped_by_reason() -> None:
    session = ort.InferenceSession(models.classifier())
    feed = {"input": np.ones((1, 10), np.float32)}
    calls, threads = 1500, 8
    with capture(buffer_records=200, events_per_second=0.0, span_ratio=0.0) as captured:

        def work() -> None:
            for _ in range(calls):
                session.run(None, feed)

        running = [threading.Thread(target=work) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        captured.flush()
        status = captured.handle.status()
        assert status.recorded_calls + sum(status.dropped_calls.values()) == calls * threads
        (point,) = points(captured, "ml.inference.duration").values()
        assert point.count == status.recorded_calls
        dropped = points(captured, "otel_mlmon.records.dropped")
        assert {dict(key)["reason"]: n for key, n in dropped.items()} == status.dropped_calls


@pytest.mark.guarded
@pytest.mark.parametrize(
    ("owner", "method", "stage"),
    [
        (TensorDecoder, "decode_batch", "record"),
        (PredictionAggregator, "add_predictions", "record"),
        (MetricWriter, "write_snapshot", "metrics"),
        (SpanWriter, "write_spans", "spans_and_events"),
        (EventWriter, "write_prediction_events", "spans_and_events"),
    ],
)
def test_a_fault_in_any_stage_changes_nothing_for_the_host(
    owner: type, method: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ort.InferenceSession(models.classifier())
    feed = {"input": np.ones((1, 10), np.float32)}
    expected = session.run(None, feed)[0]

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    with capture() as captured:
        monkeypatch.setattr(owner, method, broken)
        assert np.array_equal(session.run(None, feed)[0], expected)
        captured.flush()
        status = captured.handle.status()
        assert status.failures == {stage: 1}
        assert status.recorded_calls + sum(status.dropped_calls.values()) == 1


@pytest.mark.guarded
def test_a_call_after_which_copying_fails_is_timed_until_it_fails_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder.make_call_copier", broken)
    session = ort.InferenceSession(models.classifier())
    with capture() as captured:
        for _ in range(120):
            assert session.run(None, {"input": np.ones((1, 10), np.float32)})[0].shape == (1, 4)
        captured.flush()
        status = captured.handle.status()
        assert (status.recorded_calls, status.dropped_calls) == (100, {"switched_off": 20})
        assert status.failures == {"call": 100}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_counts_only_its_own() -> None:
    session = ort.InferenceSession(models.classifier())
    feed = {"input": np.ones((1, 10), np.float32)}
    with capture(flush_interval_s=60.0) as captured:
        for _ in range(7):
            session.run(None, feed)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = captured.handle.status()
            alive = any(thread.name == "otel_mlmon" for thread in threading.enumerate())
            os.write(writing, f"{status.waiting_calls} {status.recorded_calls} {alive}".encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as stream:
            assert stream.read() == "0 0 False"
        captured.flush()
        assert captured.handle.status().recorded_calls == 7


def test_the_calls_of_a_session_that_is_gone_before_they_are_read_count() -> None:
    with capture(flush_interval_s=60.0) as captured:
        captured.flush()
        for name in ("one", "two"):
            session = ort.InferenceSession(models.classifier(name=name))
            for _ in range(3):
                session.run(None, {"input": np.ones((1, 10), np.float32)})
            del session
        counts = points(captured, "ml.inference.duration")
        assert {dict(key)["ml.model.name"]: point.count for key, point in counts.items()} == {"one": 3, "two": 3}
        assert captured.handle.status().dropped_calls == {}


FEED = {"input": np.ones((1, 10), np.float32)}


@contextmanager
def resting(**options: Any) -> Iterator[tuple[Captured, InstrumentationPipeline]]:
    """Instrumented, one call recorded, and the thread behind stopped: nobody but the test reads."""
    with capture(**{"flush_interval_s": 60.0, **options}) as captured:
        assert captured.handle._running is not None
        pipeline = captured.handle._running.pipeline
        ort.InferenceSession(models.classifier(name="first")).run(None, FEED)
        assert pipeline._worker.stop_thread(10)
        captured.flush()
        yield captured, pipeline


def test_spans_and_events_of_many_models_in_one_round() -> None:
    sessions = [ort.InferenceSession(models.classifier(name=f"model {number}")) for number in range(40)]
    with resting() as (captured, _):
        for session in sessions:
            session.run(None, FEED)
        captured.flush()
        assert {span.name for span in captured.spans} == {
            "predict first", *(f"predict model {number}" for number in range(40)),
        }  # fmt: skip
        status = captured.handle.status()
        assert (status.dropped_span_batches, status.dropped_calls) == (0, {})


def test_whoever_cannot_wait_reads_all_that_waits_and_tells_of_a_model_once() -> None:
    with resting(span_ratio=0.0, events_per_second=0.0, buffer_records=2 * CHUNK_CALLS) as (captured, pipeline):
        session = ort.InferenceSession(models.classifier(name="iris"))
        for _ in range(CHUNK_CALLS + 1):
            session.run(None, FEED)
        pipeline._decode_waiting_calls(10.0)
        status = captured.handle.status()
        assert (status.waiting_calls, status.recorded_calls) == (0, CHUNK_CALLS + 2)
        captured.flush()
        told = [dict(found.log_record.attributes or {}) for found in captured.events]
        assert [said["ml.model.name"] for said in told] == ["first", "iris"]
        assert all("ml.model.load.duration" in said for said in told)


def test_a_span_is_not_made_before_the_metrics_hold_its_call_and_take_its_exemplar() -> None:
    with resting() as (captured, pipeline):
        ort.InferenceSession(models.softmax(classes=2, name="iris")).run(None, {"input": floats([3, 0])})
        pipeline._decode_waiting_calls(10.0)
        assert pipeline._send_spans(10.0)
        assert [span.name for span in captured.spans] == ["predict first"]
        captured.flush()
        span = captured.spans[-1]
        assert span.name == "predict iris"
        assert span.context is not None
        (label,) = [point for key, point in raw_points(captured, "ml.predictions") if MODEL in key]
        assert [found.span_id for found in label.exemplars] == [span.context.span_id]


def test_calls_of_no_trace_stay_so_when_they_are_sent_within_a_span_of_the_host() -> None:
    with capture(flush_interval_s=1000.0) as captured:
        session = ort.InferenceSession(models.classifier())
        session.run(None, FEED)
        captured.flush()
        session.run(None, FEED)
        with TracerProvider(shutdown_on_exit=False).get_tracer("host").start_as_current_span("flush") as span:
            captured.flush()
        assert [found.parent for found in captured.spans] == [None, None]
        within = span.get_span_context().trace_id
        assert within not in {found.context.trace_id for found in captured.spans if found.context}
        assert within not in {event.log_record.trace_id for event in captured.events}
