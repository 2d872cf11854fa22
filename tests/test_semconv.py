from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from otel_mlmon import semconv
from otel_mlmon.event_kinds import EVENTS
from otel_mlmon.processor.alert.alert import RuleState
from otel_mlmon.processor.notify.otlp import build_event_attributes
from otel_mlmon.testing import capture
from tests.support import models
from tests.support.alerts import FIRING

EVERY_METRIC = (*semconv.APPLICATION_METRICS, *semconv.PROCESSOR_METRICS, *semconv.PROCESSOR_SELF_METRICS)


def test_the_states_have_the_values_of_the_contract() -> None:
    assert semconv.ALERT_STATES == {"ok": 0, "pending": 1, "firing": 2, "no_data": 3, "error": 4, "unknown": 5}
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
    names = ("info", "points.pending", "requests.pending", "queue.duration", "notifications.pending", "gauges.omitted")
    assert gauges == {f"otel_mlmon.processor.{name}" for name in names}


def test_events_of_the_application_carry_the_attributes_of_the_contract_and_no_others() -> None:
    session = ort.InferenceSession(models.classifier())
    with capture() as captured:
        failing_session = ort.InferenceSession(models.classifier(), providers=["CPUExecutionProvider"])
        for rows in (1, 3):
            session.run(None, {"input": np.ones((rows, 10), np.float32)})
        with pytest.raises(Exception, match=r"invalid dimensions|Got: 2"):
            failing_session.run(None, {"input": np.ones((1, 2), np.float32)})
        captured.flush()
        events = [event.log_record for event in captured.events]
        spans = captured.spans
    attributes: dict[str, set[str]] = {}
    for event in events:
        attributes.setdefault(str(event.event_name), set()).update(event.attributes or {})
    contract = {kind.name: set(kind.attributes) for kind in EVENTS}
    unknown = {semconv.MODEL_VERSION, semconv.MODEL_REFERENCE, semconv.MODEL_FILE_SHA256}
    assert {name: contract[name] - names for name, names in attributes.items()} == {
        semconv.EVENT_PREDICTION: {semconv.OUTPUT_NAME},
        semconv.EVENT_INFERENCE_EXCEPTION: set(),
        semconv.EVENT_MODEL_LOADED: contract[semconv.EVENT_MODEL_LOADED] & unknown - attributes["ml.model.loaded"],
    }
    assert all(names <= contract[name] for name, names in attributes.items())
    severities = {kind.name: kind.severity for kind in EVENTS}
    assert all(event.severity_text == severities[str(event.event_name)] for event in events)
    on_spans = {name for span in spans for name in span.attributes or {}}
    assert {attribute.name for attribute in semconv.SPAN_ATTRIBUTES} - on_spans == {semconv.OUTPUT_NAME}
    assert on_spans <= {attribute.name for attribute in semconv.SPAN_ATTRIBUTES}
    kinds = {"string": str, "double": float, "int": int}
    types = {attribute.name: kinds[attribute.type] for attribute in semconv.SPAN_ATTRIBUTES}
    assert all(type(value) is types[name] for span in spans for name, value in (span.attributes or {}).items())


def test_the_event_of_an_alert_carries_the_attributes_of_the_contract() -> None:
    (contract,) = [kind for kind in EVENTS if kind.name == semconv.EVENT_ALERT]
    assert set(build_event_attributes(replace(FIRING, environment="staging"))) == set(contract.attributes)
