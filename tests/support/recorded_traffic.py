"""A recording of two hours of traffic, made from a seed: what an oracle and the processor are both given.

Two models and three versions; labels, confidences, numbers, categories, missing values, durations in explicit and
values in exponential buckets; deltas and totals, a sender that starts anew, requests that come twice, late or never, a
feature that is sent now and then and one that ends, a version that replaces another, and a drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.testing.telemetry import MetricsRequestBuilder
from otel_mlmon.types import ModelKey
from otel_mlmon.vocabulary import build_label_attributes

PANE_S: Final = 120
PANE_NS: Final = PANE_S * 10**9
CONFIGURATION: Final[dict[str, Any]] = {
    "windows": {"pane": "2m", "lateness": "1m", "idle_after": "3m", "rolling": "20m"},
    "models": {
        "*": {"reference": {"learn": 400}},
        "price": {"reference": {"learn": 400, "rolling": "1h", "lag": "1h"}},
    },
    "alerts": {"false_alarms": "1 per 1d"},
}
"""Of a processor for this traffic."""
CUMULATIVE: Final = 2


class TrafficStep(NamedTuple):
    """What arrives at one moment, in this order."""

    now_ns: int
    """When, Unix nanoseconds."""
    requests: list[ExportMetricsServiceRequest]
    is_restart: bool
    """Whether the processor is killed before, and starts again."""


def record_traffic(*, seed: int, start_ns: int, panes: int = 66) -> Iterator[TrafficStep]:
    """Yields what arrives in each of `panes` panes from `start_ns` on."""
    rng = np.random.default_rng(seed)
    totals = _TotalsOfPrices(start_ns)
    late: dict[int, list[ExportMetricsServiceRequest]] = {}
    for pane in range(panes):
        begin_ns, end_ns = start_ns + pane * PANE_NS, start_ns + (pane + 1) * PANE_NS
        requests = late.pop(pane, [])
        for sender in ("a", "b"):
            version = "2" if pane >= 40 and sender == "b" else "1"
            request = _count_orders(
                rng, ModelKey("shop", version), sender, pane, begin_ns, end_ns - int(rng.integers(10**9))
            )
            if sender == "b" and pane % 9 == 5:
                late.setdefault(pane + int(rng.integers(1, 5)), []).append(request)
            elif pane % 23 != 11:
                requests.append(request)
            if pane % 7 == 3:
                requests.append(request)
        if pane == 30:
            totals = _TotalsOfPrices(begin_ns)
        requests.append(totals.count(rng, end_ns))
        yield TrafficStep(end_ns + 10**9, requests, is_restart=pane in (13, 37, 58))


def _count_orders(
    rng: np.random.Generator, model: ModelKey, sender: str, pane: int, start_ns: int, end_ns: int
) -> ExportMetricsServiceRequest:
    """Counts what a classifier predicted in a pane, as deltas."""
    builder = MetricsRequestBuilder(model, sender=sender, start_ns=start_ns, end_ns=end_ns)
    calls = int(rng.integers(40, 90))
    shares = [0.2, 0.3, 0.5] if pane >= 50 else [0.6, 0.3, 0.1]
    for label, count in zip(("buy", "look", "leave"), rng.multinomial(calls, shares).tolist(), strict=True):
        builder.add_counter_point(semconv.PREDICTIONS, count, build_label_attributes(semconv.PREDICTION_LABEL, label))
    builder.add_histogram_point(semconv.CONFIDENCE, rng.beta(5, 2, calls).tolist(), {})
    builder.add_histogram_point(semconv.DURATION, rng.gamma(2.0, 0.02, calls).tolist(), {})
    if pane % 4 == 1:
        builder.add_histogram_point(semconv.DURATION, rng.gamma(2.0, 0.2, 2).tolist(), {semconv.ERROR_TYPE: "OSError"})
    ages = rng.normal(60.0 if pane >= 45 else 40.0, 9.0, calls)
    features = {"age": ages, "balance": rng.standard_cauchy(calls).round(2) * (rng.random(calls) < 0.8)}
    if pane % 5 == 0:
        features["coupon"] = rng.exponential(3.0, 6)
    if pane < 22:
        features["legacy"] = rng.uniform(0.0, 1.0, calls)
    for name, values in features.items():
        builder.add_histogram_point(semconv.FEATURE, values.tolist(), {semconv.FEATURE_NAME: name})
    builder.add_counter_point(semconv.MISSING_VALUES, int(rng.integers(4)), {semconv.FEATURE_NAME: "age"})
    countries = rng.multinomial(calls, [0.7, 0.2, 0.1]).tolist()
    for country, count in zip(("DE", "FR", f"X{pane % 6}"), countries, strict=True):
        names = {semconv.FEATURE_NAME: "country", **build_label_attributes(semconv.FEATURE_VALUE, country)}
        builder.add_counter_point(semconv.CATEGORY, count, names)
    return builder.request


class _TotalsOfPrices:
    """What a regression counted since its process started, as totals."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._values: dict[str, list[float]] = {"price": [], "duration": [], "area": [], "rooms": []}

    def count(self, rng: np.random.Generator, end_ns: int) -> ExportMetricsServiceRequest:
        """Counts another pane."""
        calls = int(rng.integers(30, 60))
        self._values["price"] += rng.lognormal(2.0, 1.0, calls).tolist()
        self._values["duration"] += rng.gamma(2.0, 0.05, calls).tolist()
        self._values["area"] += rng.normal(0.0, 50.0, calls).tolist()
        self._values["rooms"] += rng.integers(0, 6, calls).astype(float).tolist()
        builder = MetricsRequestBuilder(ModelKey("price", "7"), sender="c", start_ns=self._start_ns, end_ns=end_ns)
        builder.add_histogram_point(semconv.VALUE, self._values["price"], {})
        builder.add_histogram_point(semconv.DURATION, self._values["duration"], {})
        for name in ("area", "rooms"):
            builder.add_histogram_point(semconv.FEATURE, self._values[name], {semconv.FEATURE_NAME: name})
        for metric in builder.request.resource_metrics[0].scope_metrics[0].metrics:
            getattr(metric, str(metric.WhichOneof("data"))).aggregation_temporality = CUMULATIVE
        return builder.request
