from __future__ import annotations

import pytest

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import RuleState

EVERY_METRIC = (*semconv.APPLICATION_METRICS, *semconv.PROCESSOR_METRICS, *semconv.PROCESSOR_SELF_METRICS)


def test_the_states_have_the_values_of_the_contract() -> None:
    assert semconv.ALERT_STATES == {"ok": 0, "pending": 1, "firing": 2, "no_data": 3, "error": 4}
    assert semconv.DRIFT_STATES == {"ok": 0, "drift": 1, "learning": 2, "weak": 3, "no_data": 4, "error": 5}
    assert [state.value for state in RuleState] == list(semconv.ALERT_STATES)
    assert semconv.DRIFT_STATE.description.endswith("0 ok, 1 drift, 2 learning, 3 weak, 4 no data, 5 error.")


@pytest.mark.parametrize(
    "table", [semconv.APPLICATION_METRICS, semconv.PROCESSOR_METRICS, semconv.PROCESSOR_SELF_METRICS]
)
def test_a_name_stands_for_one_metric(table: tuple[semconv.Metric, ...]) -> None:
    names = [metric.name for metric in table]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("metric", EVERY_METRIC, ids=lambda metric: metric.name)
def test_a_metric_has_a_unit_a_sentence_and_ascending_bounds(metric: semconv.Metric) -> None:
    assert metric.unit
    assert metric.description.endswith(".")
    assert metric.bounds is None or list(metric.bounds) == sorted(set(metric.bounds))
    assert (metric.bounds is not None) is (metric.instrument == "histogram")


def test_running_totals_of_the_processor_are_counters() -> None:
    gauges = {metric.name for metric in semconv.PROCESSOR_SELF_METRICS if metric.instrument == "gauge"}
    assert gauges == {"otel_mlmon.processor.requests.pending", "otel_mlmon.processor.notifications.pending"}
