"""Measures several ways of monitoring one inference call, over a few models."""

from __future__ import annotations

import functools
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import otel_mlmon
from tests.support import models

Run = Callable[[], Any]


class NoExport(SpanExporter):
    """An exporter that takes spans and forgets them, since the cost of sending is not measured."""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:  # noqa: ARG002 (the SDK's signature)
        """Nothing."""
        return SpanExportResult.SUCCESS


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and its input."""

    name: str
    model: Callable[[], bytes]
    shape: tuple[int, ...]
    calls_ratio: float = 1.0
    threads: int = 1


CASES = (
    Case(name="10→16→4, batch 1", model=models.classifier, shape=(1, 10)),
    # Our thread wakes each second, or at 4,096 calls: what is left for after a block does not stand in its way.
    Case(name="10→16→4, batch 1, read after", model=models.classifier, shape=(1, 10), calls_ratio=0.3),
    Case(name="10→16→4, batch 256", model=models.classifier, shape=(256, 10), calls_ratio=0.5),
    Case(
        name="image 3×224×224",
        model=functools.partial(models.image, channels=3, height=224, width=224),
        shape=(1, 3, 224, 224),
        calls_ratio=0.05,
    ),
    Case(name="10→16→4, batch 1, four threads", model=models.classifier, shape=(1, 10), threads=4),
    Case(name="ZipMap, batch 1", model=models.text_labels, shape=(1, 3)),
)


@dataclass(kw_only=True)
class Measured:
    """The figures of one way of monitoring, one a round."""

    p50_ns: list[float] = field(default_factory=list)
    p999_ns: list[float] = field(default_factory=list)
    cpu_ns: list[float] = field(default_factory=list)


def block(run: Run, calls: int, settle: Callable[[], object], threads: int = 1) -> tuple[float, float, float]:
    """Measures a block of calls: p50, p99.9 and CPU of a call, in nanoseconds."""
    clock = time.perf_counter_ns
    taken = np.empty(calls, dtype=np.int64)

    def work(first: int) -> None:
        for index in range(first, calls, threads):
            started = clock()
            run()
            taken[index] = clock() - started

    others = [threading.Thread(target=work, args=(first,)) for first in range(1, threads)]
    cpu = time.process_time_ns()
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()
    settle()
    cpu = time.process_time_ns() - cpu
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99.9)), cpu / calls


def nothing() -> None:
    """Ends a way of monitoring that leaves nothing behind."""


def scores_of(outputs: Sequence[Any]) -> Any:
    """Returns the output that holds the scores; of ZipMap's dictionaries, an array."""
    last = outputs[-1]
    return np.array([list(row.values()) for row in last]) if isinstance(last, list) else last


def usual_logger(run: Run) -> Run:
    """Monitors by hand as guides say: time the call, take the softmax, log both."""
    log = logging.getLogger("benchmarks.inference")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers = [logging.StreamHandler(Path(os.devnull).open("w"))]  # noqa: SIM115 (lives as long as the process)

    def logged() -> Any:
        started = time.perf_counter()
        outputs = run()
        elapsed_ms = (time.perf_counter() - started) * 1000
        scores = scores_of(outputs)
        shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
        confidence = (shifted / shifted.sum(axis=-1, keepdims=True)).max(axis=-1)
        log.info("inference", extra={"latency_ms": round(elapsed_ms, 1), "confidence": float(confidence[0])})
        return outputs

    return logged


def inline_otel(run: Run, tracer: Any, meter: Any, logger: Any) -> Run:
    """Monitors by the SDK on the caller's thread: a span, two histograms, a counter and an event."""
    from opentelemetry._logs import LogRecord

    duration = meter.create_histogram("inline.duration", unit="s")
    certainty = meter.create_histogram("inline.confidence")
    predictions = meter.create_counter("inline.predictions")

    def inline() -> Any:
        with tracer.start_as_current_span("predict") as span:
            started = time.perf_counter()
            outputs = run()
            elapsed_s = time.perf_counter() - started
            scores = scores_of(outputs)
            shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
            probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
            label, confidence = str(int(probabilities[0].argmax())), float(probabilities[0].max())
            attributes = {"ml.model.name": "bench", "ml.prediction.label": label}
            span.set_attributes({**attributes, "ml.prediction.confidence": confidence})
            duration.record(elapsed_s, {"ml.model.name": "bench"})
            certainty.record(confidence, {"ml.model.name": "bench"})
            predictions.add(1, attributes)
            logger.emit(LogRecord(timestamp=time.time_ns(), event_name="ml.prediction", attributes=attributes))
        return outputs

    return inline


@contextmanager
def ours(tracers: TracerProvider, meters: MeterProvider, loggers: LoggerProvider, **options: Any) -> Iterator[Any]:
    """Monitors by `otel_mlmon.instrument()`."""
    handle = otel_mlmon.instrument(
        tracer_provider=tracers, meter_provider=meters, logger_provider=loggers, model_name="bench", **options
    )
    try:
        yield handle
    finally:
        handle.uninstrument()


def measure(case: Case, *, rounds: int, calls: int, names: Sequence[str] = ()) -> dict[str, Measured]:
    """Measures every way of monitoring `case`, or those of `names` and ours, round after round."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.model(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.random.default_rng(0).random(case.shape, dtype=np.float32)}
    calls = max(50, int(calls * case.calls_ratio))

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(NoExport()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    loggers = LoggerProvider(shutdown_on_exit=False)
    bare_run = type(session).run

    def bare() -> Any:
        return bare_run(session, None, feed)

    def instrumented() -> Any:
        return session.run(None, feed)

    def flush_spans() -> None:
        tracers.force_flush()

    variants: dict[str, tuple[Run, Callable[[], object]]] = {
        "bare": (bare, nothing),
        "usual logger": (usual_logger(bare), nothing),
        "inline OpenTelemetry": (
            inline_otel(bare, tracers.get_tracer("b"), meters.get_meter("b"), loggers.get_logger("b")),
            flush_spans,
        ),
    }
    variants = {name: variant for name, variant in variants.items() if not names or name in names}
    measured = {name: Measured() for name in (*variants, "otel_mlmon")}

    def note(name: str, figures: tuple[float, float, float]) -> None:
        measured[name].p50_ns.append(figures[0])
        measured[name].p999_ns.append(figures[1])
        measured[name].cpu_ns.append(figures[2])

    for _ in range(200):
        bare()
    try:
        for _ in range(rounds):
            for name, (run, settle) in variants.items():
                gc.collect()
                note(name, block(run, calls, settle, case.threads))
            gc.collect()
            with ours(tracers, meters, loggers) as handle:
                for _ in range(50):
                    instrumented()
                flush = functools.partial(handle.flush, timeout_s=10)
                flush()
                note("otel_mlmon", block(instrumented, calls, flush, case.threads))
    finally:
        tracers.shutdown()
        meters.shutdown()
        loggers.shutdown()
    return measured
