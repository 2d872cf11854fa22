from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from otel_mlmon import semconv
from otel_mlmon.processor.self_telemetry import MetricValue, SelfTelemetry


def test_counts_of_all_threads_add_up() -> None:
    telemetry = SelfTelemetry()

    def count() -> None:
        for _ in range(1000):
            telemetry.add(semconv.WINDOW_POINTS, 2, outcome="counted")

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(count)
    assert telemetry.values() == [
        MetricValue(metric=semconv.WINDOW_POINTS, attributes={"outcome": "counted"}, value=16000)
    ]


def test_totals_are_sorted_by_name_and_attributes() -> None:
    telemetry = SelfTelemetry()
    telemetry.add(semconv.REFERENCES, outcome="taken")
    telemetry.add(semconv.ALERTS, rule="latency", state="ok")
    telemetry.add(semconv.ALERTS, state="firing", rule="latency")
    telemetry.add(semconv.ALERTS, 0, rule="latency", state="firing")
    assert telemetry.values() == [
        MetricValue(metric=semconv.ALERTS, attributes={"rule": "latency", "state": "firing"}, value=1),
        MetricValue(metric=semconv.ALERTS, attributes={"rule": "latency", "state": "ok"}, value=1),
        MetricValue(metric=semconv.REFERENCES, attributes={"outcome": "taken"}, value=1),
    ]
