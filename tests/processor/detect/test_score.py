from __future__ import annotations

from otel_mlmon.processor.detect.score import Statistics, StatisticValue

PSI = StatisticValue(value=0.3, p_value=0.01, noise=0.02)
HELLINGER = StatisticValue(value=0.0)


def test_statistics_are_told_one_by_one() -> None:
    statistics = Statistics.of({"psi": PSI, "hellinger": HELLINGER})
    assert statistics == Statistics(
        names=("psi", "hellinger"), values=(0.3, 0.0), p_values=(0.01, None), noises=(0.02, None)
    )
    assert list(statistics.items()) == [("psi", PSI), ("hellinger", HELLINGER)]
    assert (statistics.get("hellinger"), statistics.get("wasserstein")) == (HELLINGER, None)


def test_no_statistics() -> None:
    assert list(Statistics().items()) == []
    assert Statistics() == Statistics.of({})
