"""A sender that counts wrongly costs the values of its stream in a pane, and nothing else."""

from __future__ import annotations

import logging

import pytest

from otel_mlmon import semconv
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey

MODEL = ModelKey("m", "1")
SERIES = 2_100
"""So many of 2^53 values are more than 64 bits have room for."""


def add_garbage(builder: MetricsRequestBuilder, metric: semconv.Metric, attributes: dict[str, str]) -> None:
    for number in range(SERIES):
        if metric.instrument == "counter":
            builder.add_counter_point(metric, 2**53, {**attributes, "worker": str(number)})
        else:
            builder.add_histogram_point(metric, [1.5], {**attributes, "worker": str(number)})
    for data in builder.request.resource_metrics[0].scope_metrics[0].metrics:
        for points, counts in ((data.exponential_histogram, "positive"), (data.histogram, "")):
            for point in points.data_points:
                buckets = (getattr(point, counts) if counts else point).bucket_counts
                point.count = 2**53
                buckets[:] = [2**53 if count else 0 for count in buckets]


@pytest.mark.parametrize(
    ("metric", "attributes", "streams"),
    [
        (semconv.PREDICTIONS, {semconv.PREDICTION_LABEL: "a"}, {semconv.STREAM_LABEL}),
        (semconv.CATEGORY, {semconv.FEATURE_NAME: "x", semconv.FEATURE_VALUE: "a"}, {"input.x"}),
        (semconv.FEATURE, {semconv.FEATURE_NAME: "x"}, {"input.x"}),
        (semconv.DURATION, {}, {semconv.STREAM_LATENCY, semconv.STREAM_ERRORS}),
    ],
    ids=lambda value: value.name if isinstance(value, semconv.Metric) else "",
)
def test_more_values_than_can_be_are_left_out_and_the_state_is_stored(
    metric: semconv.Metric, attributes: dict[str, str], streams: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "Model m 1: more than 8796093022208 values of {} in one pane are left out: one of its senders counts wrongly."
    )
    features: dict[str, dict[str, int] | list[float]] = {"x": [1.0] * 9 if metric is semconv.FEATURE else {"a": 9}}
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 20}}}}) as processor:

        def send(count: int) -> None:
            for _ in range(count):
                processor.send_counts("m", labels={"a": 100, "b": 100}, features=features, durations_s=[0.1] * 9)
                processor.advance(10)

        send(4)
        end_ns = processor.now_ns
        for sender in ("wrong", "late"):
            builder = MetricsRequestBuilder(MODEL, sender=sender, start_ns=end_ns - 10 * 10**9, end_ns=end_ns)
            add_garbage(builder, metric, attributes)
            caplog.clear()
            with caplog.at_level(logging.ERROR, "otel_mlmon"):
                assert processor.receive(builder.request).accepted == SERIES
                send(4)
            assert {record.getMessage() for record in caplog.records} == set(map(text.format, streams))
        windows = processor._pipeline._windows
        before = windows.pending_points, windows.summary(MODEL).predictions
        assert max(before) < 3_000
        processor.restart()
        windows = processor._pipeline._windows
        assert (windows.pending_points, windows.summary(MODEL).predictions) == before
