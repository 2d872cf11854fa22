"""The fields of `status()` about metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import otel_mlmon
from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.instrumentation.export.bulk_self_test import check_bulk_recording
from otel_mlmon.instrumentation.lifecycle import Handle
from otel_mlmon.instrumentation.status import Status
from otel_mlmon.testing import capture
from tests.support import models


@contextmanager
def used(meter_provider: MeterProvider | None) -> Iterator[Handle]:
    """Instrumented, one call made, and flushed."""
    handle = otel_mlmon.instrument(
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        meter_provider=meter_provider,
        logger_provider=LoggerProvider(shutdown_on_exit=False),
        min_new_values=1,
    )
    try:
        ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
        assert handle.flush(10)
        yield handle
    finally:
        handle.shutdown(10)


def export_of(status: Status) -> tuple[Any, ...]:
    return status.bulk_unavailable_reason, status.exemplars_unavailable_reason, status.metric_readers


def test_before_the_first_record_and_after_the_end() -> None:
    with capture() as captured:
        captured.handle.shutdown()
        handle = otel_mlmon.instrument(span_ratio=0.0)
        try:
            assert export_of(handle.status()) == ("nothing was recorded yet", "nothing was recorded yet", {})
        finally:
            handle.shutdown()
        assert export_of(handle.status()) == ("it was shut down", "it was shut down", {})


def test_the_fast_way_with_exponential_histograms_of_our_own_and_buckets_on_a_provider_of_the_hosts() -> None:
    with capture() as captured:
        ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
        captured.flush()
        assert export_of(captured.handle.status()) == ("", "", {"InMemoryMetricReader": "exponential histograms"})
    provider = sdk.MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    with used(provider) as handle:
        buckets = {"InMemoryMetricReader": "histograms of 68 buckets, -5e+06 … 5e+06"}
        assert export_of(handle.status()) == ("", "", buckets)
    provider.shutdown()


def test_a_meter_provider_that_is_not_the_sdks() -> None:
    foreign = "the meter provider is not OpenTelemetry's SDK but opentelemetry.metrics.NoOpMeterProvider"
    with used(NoOpMeterProvider()) as handle:
        assert export_of(handle.status()) == (foreign, foreign, {})


@pytest.mark.guarded
@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_METRICS_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "10s")]
)
def test_metrics_switched_off_by_the_environment(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    off = (
        "there is no meter provider: OTEL_METRICS_EXPORTER leaves metrics to one of your own, "
        "or no exporter can be made (failures: exporters)"
    )
    with used(None) as handle:
        assert export_of(handle.status()) == (off, off, {})


def test_a_release_of_the_sdk_laid_out_in_another_way_is_used_by_record(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = sdk.MeterProvider([reader], shutdown_on_exit=False)
    bulk.import_private_name.cache_clear()
    check_bulk_recording.cache_clear()
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics._internal.measurement", None)
    try:
        with used(provider) as handle:
            reason, exemplars, readers = export_of(handle.status())
            assert (exemplars, readers) == (reason, {})
            assert "is laid out in another way: ModuleNotFoundError" in reason
            data = reader.get_metrics_data()
            assert data is not None
            names = [metric.name for metric in data.resource_metrics[0].scope_metrics[0].metrics]
            assert {"ml.inference.duration", "ml.input.feature"} <= set(names)
    finally:
        bulk.import_private_name.cache_clear()
        check_bulk_recording.cache_clear()
        provider.shutdown()
