"""The Prometheus text format 0.0.4, from OpenTelemetry's names.

Dots become underscores and the unit a suffix; counters end in `_total`. Sources: Prometheus, exposition
formats; OpenTelemetry specification, compatibility/prometheus_and_openmetrics.md (units in braces have no
suffix).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from otel_mlmon.semconv import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SUFFIXES: Final = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "1": "ratio"}
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_NOT_IN_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")


class Sample(NamedTuple):
    """One number."""

    metric: Metric
    attributes: Mapping[str, str]
    value: float


def render(samples: Iterable[Sample]) -> str:
    """`samples` as a page, each metric's together, in the order of first appearance."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(name_of(sample.metric), []).append(sample)
    return "".join(f"{line}\n" for name, group in by_name.items() for line in _family(name, group))


def name_of(metric: Metric) -> str:
    """`ml.inference.duration` in seconds is `ml_inference_duration_seconds`."""
    name = _clean(metric.name)
    suffix = _SUFFIXES.get(metric.unit)
    if suffix == "ratio" and _is_counter(metric):
        suffix = None
    if suffix and not name.endswith(f"_{suffix}"):
        name += f"_{suffix}"
    return f"{name}_total" if _is_counter(metric) and not name.endswith("_total") else name


def _family(name: str, samples: list[Sample]) -> Iterator[str]:
    metric = samples[0].metric
    yield f"# HELP {name} {metric.description.translate(_HELP_ESCAPES)}"
    yield f"# TYPE {name} {'counter' if _is_counter(metric) else 'gauge'}"
    for sample in samples:
        yield f"{name}{_labels(sample.attributes)} {_number(sample.value)}"


def _labels(attributes: Mapping[str, str]) -> str:
    labels: dict[str, str] = {}
    for key, value in sorted(attributes.items()):
        # Two keys may become one label; the specification joins their values.
        label = _clean(key)
        labels[label] = f"{labels[label]};{value}" if label in labels else value
    inside = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _clean(name: str) -> str:
    cleaned = re.sub("_{2,}", "_", _NOT_IN_NAME.sub("_", name))
    return f"_{cleaned}" if cleaned[:1].isdigit() else cleaned


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _is_counter(metric: Metric) -> bool:
    return metric.instrument in ("counter", "observable_counter")
