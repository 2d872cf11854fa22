from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from otel_mlmon.processor.self_telemetry import SelfTelemetry


def test_counts_of_all_threads_add_up() -> None:
    telemetry = SelfTelemetry()

    def count() -> None:
        for _ in range(1000):
            telemetry.add("points.accepted", 2, signal="metrics")

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(count)
    (reading,) = telemetry.snapshot()
    assert (reading.metric.name, reading.metric.instrument, reading.attributes, reading.value) == (
        "otel_mlmon.processor.points.accepted",
        "counter",
        {"signal": "metrics"},
        16000,
    )


def test_gauges_are_set_and_all_is_sorted_with_its_words_and_unit() -> None:
    telemetry = SelfTelemetry(descriptions={"commit": "Time of a commit."}, units={"commit": "s"})
    telemetry.set("streams", 3)
    telemetry.set("streams", 4)
    telemetry.add("commit", 0.5, b="2", a="1")
    telemetry.add("commit", 0.25, a="1", b="2")
    first, second = telemetry.snapshot()
    assert (first.metric.description, first.metric.unit, first.attributes, first.value) == (
        "Time of a commit.",
        "s",
        {"a": "1", "b": "2"},
        0.75,
    )
    assert (second.metric.instrument, second.value) == ("gauge", 4)
