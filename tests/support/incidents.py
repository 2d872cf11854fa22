"""Seeded fleets of three models: one of them in trouble, or none. What the page says of them is tested and pictured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.processor.serve.page.source import PageSource
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey

PANE_S: Final = 10
CALM_PANES: Final = 30
TROUBLE_PANES: Final = 8
CALLS: Final = 250
SETUP: Final[Mapping[str, Any]] = {
    "addresses": {"grpc": "127.0.0.1:4317", "http": "127.0.0.1:4318", "web": "127.0.0.1:8080"},
    "received": {"points": {"accepted": 48_210, "refused": 0, "ignored": 0}, "rejected": {}},
    "limits": [{"name": "streams", "key": "limits.max_streams", "used": 21, "most": 10_000}],
    "notifiers": [{"name": "webhook-0", "kind": "webhook", "pending": 0, "outcomes": {"delivered": 2}}],
    "pane_s": 10.0,
    "recent_s": 60.0,
    "rolling_s": 3_600.0,
    "alert_for_s": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What one model does in one pane."""

    version: str = "7"
    labels: Mapping[str, float] = field(default_factory=lambda: {"approve": 0.7, "review": 0.2, "decline": 0.1})
    age_factor: float = 1.0
    slowness: float = 1.0
    failed_ratio: float = 0.0
    provider: tuple[str, str] | None = None
    """The provider that was asked for, and the one that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One model's trouble, and what a page about it has to say."""

    model: str
    trouble: Traffic
    headline: str
    action: str
    """Words of the first thing to do, or of one of them."""
    panes: int = TROUBLE_PANES
    """How long the trouble lasts."""


CALM: Final = Traffic()
INCIDENTS: Final[Mapping[str, Incident]] = {
    "slow": Incident(
        model="credit-risk",
        trouble=Traffic(slowness=14.0),
        headline="55 % of calls take over 200 ms",
        action="Open a trace of a slow call",
    ),
    "failing": Incident(
        model="churn",
        trouble=Traffic(failed_ratio=0.2),
        headline="20 % of calls fail",
        action="Open a trace of a failed call",
    ),
    "class-gone": Incident(
        model="credit-risk",
        trouble=Traffic(labels={"approve": 0.8, "review": 0.2, "decline": 0.0}),
        headline="no prediction is decline any more",
        action="Look whether inputs that should give decline still arrive",
    ),
    "unit": Incident(
        model="churn",
        trouble=Traffic(age_factor=12.0),
        headline="age about 12 times larger",
        action="such as from years to months",
    ),
    "fallback": Incident(
        model="image-search",
        trouble=Traffic(slowness=14.0, provider=("CUDAExecutionProvider", "CPUExecutionProvider")),
        headline="runs on CPU instead of CUDA (NVIDIA GPU); 53 % of calls take over 200 ms",
        action="Find out why CUDA (NVIDIA GPU) could not be used",
    ),
    "deploy": Incident(
        model="churn",
        trouble=Traffic(version="8", failed_ratio=0.3, labels={"approve": 0.2, "review": 0.2, "decline": 0.6}),
        headline="30 % of calls fail since its deploy; go back to version 7",
        action="Go back to version 7: what is wrong began with the deploy of version 8",
    ),
}
MODELS: Final = ("churn", "credit-risk", "image-search")


def simulate(incident: Incident | None, *, start_ns: int) -> tuple[SimulatedProcessor, int]:
    """Simulates a fleet; returns its processor, to be closed, and when the trouble began (Unix nanoseconds)."""
    rng = np.random.default_rng(7)
    alerts = {"trace_url": "https://jaeger.example/trace/{trace_id}"}
    models = {"*": {"reference": {"learn": 1500}}}
    processor = SimulatedProcessor({"alerts": alerts, "models": models}, start_ns=start_ns)
    trouble_ns = start_ns + CALM_PANES * PANE_S * 10**9
    for model in MODELS:
        processor.receive(loaded_model(model, "7", "", "CUDAExecutionProvider", time_ns=start_ns))
    for pane in range(CALM_PANES + (incident.panes if incident is not None else TROUBLE_PANES)):
        processor.now_ns += PANE_S * 10**9
        for model in MODELS:
            is_troubled = incident is not None and model == incident.model and pane >= CALM_PANES
            traffic = incident.trouble if incident is not None and is_troubled else CALM
            if traffic.provider is not None:
                begin_ns = processor.now_ns - PANE_S * 10**9  # a model is loaded before it is called
                processor.receive(loaded_model(model, traffic.version, *traffic.provider, time_ns=begin_ns))
            send(processor, rng, model, traffic)
        processor.advance()
    processor.document()
    return processor, trouble_ns


FORTNIGHT_PANE_S: Final = 1_800
FORTNIGHT_PANES: Final = 14 * 86_400 // FORTNIGHT_PANE_S


def simulate_fortnight(*, start_ns: int, pane_s: int = FORTNIGHT_PANE_S) -> SimulatedProcessor:
    """Simulates fourteen days of a fleet with quiet nights; returns its processor, to be closed.

    One model is deployed anew on the ninth day, and is slow for an hour on the twelfth; of another one the inputs
    change in the last six hours.
    """
    rng = np.random.default_rng(11)
    silence = {"after": f"{3 * pane_s}s"}
    models = {"*": {"reference": {"learn": 20_000}, "latency": {"threshold": "100ms"}, "no_data": silence}}
    windows = {"pane": f"{pane_s}s", "rolling": f"{max(3_600, pane_s)}s"}
    processor = SimulatedProcessor({"models": models, "windows": windows}, start_ns=start_ns)
    for pane in range(14 * 86_400 // pane_s):
        processor.now_ns += pane_s * 10**9
        day = pane * pane_s / 86_400
        calls = round(CALLS * pane_s / 300 * (0.6 - 0.5 * np.cos(2 * np.pi * day)))
        for model in MODELS:
            traffic = CALM
            if model == "credit-risk":
                traffic = Traffic(version="7" if day < 8.5 else "8", slowness=14.0 if 0 < day - 11.5 < 1 / 24 else 1.0)
            elif model == "churn" and day > 13.75:
                traffic = INCIDENTS["unit"].trouble
            send(processor, rng, model, traffic, calls=calls)
        processor.advance()
        processor.document()
    return processor


def send(
    processor: SimulatedProcessor, rng: np.random.Generator, model: str, traffic: Traffic, *, calls: int = CALLS
) -> None:
    """Sends one pane of a model."""
    shares = np.array(list(traffic.labels.values()))
    counts = rng.multinomial(calls, shares / shares.sum())
    durations = rng.lognormal(-4.0, 0.3, calls) * traffic.slowness
    failed = rng.random(calls) < traffic.failed_ratio
    processor.send_counts(
        model,
        version=traffic.version,
        labels={label: int(count) for label, count in zip(traffic.labels, counts, strict=True) if count},
        confidences=rng.beta(9, 2, calls).tolist(),
        features={
            "age": (rng.normal(41, 11, calls).clip(18, 90) * traffic.age_factor).tolist(),
            "income": rng.lognormal(8, 0.5, calls).tolist(),
        },
        durations_s=durations[~failed].tolist(),
        failed_durations_s=durations[failed].tolist(),
    )
    if traffic.slowness > 1.0 or traffic.failed_ratio:
        processor.receive(_traced_call(processor.now_ns, model, traffic, float(durations[0]), trace_id=rng.bytes(16)))


def _traced_call(
    now_ns: int, model: str, traffic: Traffic, duration_s: float, *, trace_id: bytes
) -> ExportMetricsServiceRequest:
    """Builds what another process of the model counted: one call, with its trace."""
    telemetry = MetricsRequestBuilder(
        ModelKey(model, traffic.version, ""), sender="sender-2", start_ns=now_ns - PANE_S * 10**9, end_ns=now_ns
    )
    error = {semconv.ERROR_TYPE: "RuntimeError"} if traffic.failed_ratio else {}
    telemetry.add_histogram_point(semconv.DURATION, [duration_s], error)
    (metric,) = telemetry.request.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.exponential_histogram.data_points or metric.histogram.data_points
    point.exemplars.add(time_unix_nano=now_ns, as_double=duration_s, trace_id=trace_id, span_id=trace_id[:8])
    return telemetry.request


def loaded_model(model: str, version: str, requested: str, provider: str, *, time_ns: int) -> ExportLogsServiceRequest:
    """Builds the event of a model that was loaded, or that of another provider than the one asked for."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.scope.name = semconv.SCOPE
    name = semconv.EVENT_PROVIDER_FALLBACK if requested else semconv.EVENT_MODEL_LOADED
    record = scope.log_records.add(event_name=name, time_unix_nano=time_ns)
    attributes = {
        semconv.MODEL_NAME: model,
        semconv.MODEL_VERSION: version,
        semconv.EXECUTION_PROVIDERS_REQUESTED: requested,
        semconv.EXECUTION_PROVIDER: provider,
    }
    for key, value in attributes.items():
        record.attributes.add(key=key).value.string_value = value
    return request


def source_of(processor: SimulatedProcessor) -> PageSource:
    """Returns what a page about a simulated processor is made of."""
    pipeline = processor._pipeline
    return PageSource(overview=pipeline.read(), setup=SETUP, history=pipeline.history, now_ns=processor.now_ns)
