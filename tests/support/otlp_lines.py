"""Prediction telemetry as the Collector's file exporter writes it: a line of OTLP JSON an export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.sketch.exponential import BIAS, ExponentialHistogram

START_S = 1_767_225_600
DELTA = 1


def line(at_s: float, metrics: Iterable[Mapping[str, Any]], *, model: str = "fraud") -> str:
    """Returns the OTLP JSON line of one export of one process."""
    resource = {"attributes": [{"key": semconv.MODEL_NAME, "value": {"stringValue": model}}]}
    scope = {"scope": {"name": "otel_mlmon"}, "metrics": [_timed(metric, at_s) for metric in metrics], "schemaUrl": ""}
    return json.dumps({"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}]}) + "\n"


def labels(counts: Mapping[str, int]) -> dict[str, Any]:
    """Returns the metric `ml.predictions` by label."""
    points = [
        {"attributes": [_text(semconv.PREDICTION_LABEL, name)], "asInt": str(count)} for name, count in counts.items()
    ]
    return {
        "name": semconv.PREDICTIONS.name,
        "sum": {"dataPoints": points, "aggregationTemporality": DELTA, "isMonotonic": True},
    }


def feature(name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Returns the metric `ml.input.feature` of one feature whose values are above 0."""
    sketch = ExponentialHistogram.from_values(values)
    low = int(sketch.ordinals[0])
    dense = np.zeros(int(sketch.ordinals[-1]) - low + 1, dtype=np.int64)
    dense[sketch.ordinals - low] = sketch.counts
    point = {
        "attributes": [_text(semconv.FEATURE_NAME, name)],
        "count": str(values.size),
        "sum": float(values.sum()),
        "scale": sketch.scale,
        "positive": {"offset": low - BIAS, "bucketCounts": [str(count) for count in dense.tolist()]},
        "exemplars": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "asDouble": 1}],
        "somethingNew": {"unknown": True},
    }
    return {
        "name": semconv.FEATURE.name,
        "exponentialHistogram": {"dataPoints": [point], "aggregationTemporality": DELTA},
    }


def _timed(metric: Mapping[str, Any], at_s: float) -> dict[str, Any]:
    timed: dict[str, Any] = dict(metric)
    for kind in ("sum", "exponentialHistogram"):
        for point in timed.get(kind, {}).get("dataPoints", ()):
            point["timeUnixNano"] = str(round(at_s * 1e9))
            point["startTimeUnixNano"] = str(round((at_s - 5) * 1e9))
    return timed


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}
