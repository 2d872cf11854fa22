"""How the values of features get out of each metric reader: the host's views decide, and not every reader can follow.

Exponential histograms need a view or a reader that asks for them; else values fall into the buckets of
`semconv.VALUE_BOUNDS`. Prometheus's reader has no exponential histograms: where a view of the host's asks for them, its
whole scrape fails. Source: opentelemetry-exporter-prometheus, `_CustomCollector._collect_data_points` (0.60b0, 0.66b2).
"""

from __future__ import annotations

from typing import Any, Final

from otel_mlmon.instrumentation.export import bulk

_WITHOUT_EXPONENTIAL: Final = "PrometheusMetricReader"


def ways(instrument: Any) -> dict[str, str]:
    """What a histogram of the SDK's becomes, by the class of each reader, numbered where there are several of one."""
    found: dict[str, str] = {}
    names: dict[int, str] = {}
    for reader, match in bulk.matches(instrument):
        kind = type(reader).__name__
        same = sum(name.split(" ")[0] == kind for name in names.values())
        name = names.setdefault(id(reader), kind if not same else f"{kind} {same + 1}")
        way = _way(reader, match._aggregation)
        found[name] = f"{found[name]}; {way}" if name in found else way
    return found


def _way(reader: Any, aggregation: Any) -> str:
    kind = type(aggregation).__name__
    if kind == bulk.EXPONENTIAL:
        if any(base.__name__ == _WITHOUT_EXPONENTIAL for base in type(reader).__mro__):
            return "nothing: a view asks for exponential histograms, at which this reader fails with all its metrics"
        return "exponential histograms"
    if kind == bulk.EXPLICIT:
        bounds = aggregation._boundaries
        return f"histograms of {len(bounds) + 1} buckets" + (f", {bounds[0]:g} … {bounds[-1]:g}" if bounds else "")
    return "nothing: a view drops them" if kind == bulk.DROP else "no histograms: a view makes something else of them"
