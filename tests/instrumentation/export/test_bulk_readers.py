from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    SumAggregation,
    View,
)

from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.instrumentation.export.bulk import describe_metric_readers

BUCKETS = "histograms of 3 buckets, -1 … 5"
EXPONENTIAL = "exponential histograms"


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([], BUCKETS),
        ([View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())], EXPONENTIAL),
        (
            [View(instrument_name="h", aggregation=ExplicitBucketHistogramAggregation([]))],
            "histograms of 1 buckets",
        ),
        ([View(instrument_name="h", aggregation=DropAggregation())], "nothing: a view drops them"),
        (
            [View(instrument_name="h", aggregation=SumAggregation())],
            "no histograms: a view makes something else of them",
        ),
        (
            [
                View(instrument_name="h"),
                View(instrument_name="h", name="x", aggregation=ExponentialBucketHistogramAggregation()),
            ],
            f"{BUCKETS}; {EXPONENTIAL}",
        ),
    ],
)  # fmt: skip
def test_what_the_views_make_of_a_histogram(views: list[View], expected: str) -> None:
    provider = MeterProvider([InMemoryMetricReader()], views=views, shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=[-1.0, 5.0])
    assert describe_metric_readers(histogram) == {"InMemoryMetricReader": expected}
    provider.shutdown()


def test_each_reader_has_a_line() -> None:
    readers = [
        InMemoryMetricReader(),
        InMemoryMetricReader(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()}),
    ]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=[-1.0, 5.0])
    assert describe_metric_readers(histogram) == {
        "InMemoryMetricReader": BUCKETS,
        "InMemoryMetricReader 2": EXPONENTIAL,
    }
    # Asking makes no data point.
    assert [reader.get_metrics_data() for reader in readers] == [None, None]
    provider.shutdown()


@pytest.mark.parametrize("is_exponential", [False, True])
def test_prometheus_gets_buckets_or_nothing_at_all(*, is_exponential: bool) -> None:
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    client = pytest.importorskip("prometheus_client")
    view = View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider(
        [exporter.PrometheusMetricReader()], views=[view] if is_exponential else [], shutdown_on_exit=False
    )
    histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=[-1.0, 5.0])
    bulk.record_values_at_once(histogram, np.array([0.5]), {})
    if is_exponential:
        nothing = "nothing: a view asks for exponential histograms, at which this reader fails with all its metrics"
        assert describe_metric_readers(histogram) == {"PrometheusMetricReader": nothing}
        with pytest.raises(AttributeError, match="ExponentialHistogramDataPoint"):
            client.generate_latest()
    else:
        assert describe_metric_readers(histogram) == {"PrometheusMetricReader": BUCKETS}
        assert "h_bucket" in client.generate_latest().decode()
    provider.shutdown()
