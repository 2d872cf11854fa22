from __future__ import annotations

from dataclasses import replace
from typing import Any

from otel_mlmon.processor.notify.otlp import OtlpNotifier
from tests.support.alerts import FIRING, RESOLVED


def test_an_alert_is_one_event_of_scalars() -> None:
    events: list[tuple[Any, ...]] = []
    OtlpNotifier(lambda *event: events.append(event)).notify(FIRING)
    ((name, severity, body, attributes, time_ns),) = events
    assert (name, severity, time_ns) == ("ml.alert", "ERROR", FIRING.time_ns)
    assert body == "FIRING · critical · digits 1 · prediction drift"
    assert attributes == {
        "ml.model.name": "digits",
        "ml.model.version": "1",
        "ml.alert.rule": "prediction_drift",
        "ml.alert.state": "firing",
        "ml.alert.previous": "ok",
        "ml.alert.severity": "critical",
        "ml.alert.fingerprint": FIRING.fingerprint,
        "ml.alert.onset": FIRING.onset_ns,
        "ml.alert.causes": 1,
        "ml.drift.stream": "prediction.label",
        "ml.alert.value": 0.35,
        "ml.alert.bound": 0.02,
        "ml.alert.reference": "class 3: 10 %",
        "ml.alert.current": "45 %",
    }


def test_severity_follows_and_what_is_not_known_is_left_out() -> None:
    events: list[tuple[Any, ...]] = []
    notifier = OtlpNotifier(lambda *event: events.append(event))
    notifier.notify(RESOLVED)
    notifier.notify(replace(FIRING, severity="warning", version="", causes=()))
    assert [event[1] for event in events] == ["INFO", "WARN"]
    assert not {"ml.model.version", "ml.drift.stream", "ml.alert.value"} & events[1][3].keys()
    assert "deployment.environment.name" not in events[0][3]


def test_the_environment_of_the_model_goes_with_it() -> None:
    events: list[tuple[Any, ...]] = []
    OtlpNotifier(lambda *event: events.append(event)).notify(replace(FIRING, environment="staging"))
    assert events[0][3]["deployment.environment.name"] == "staging"
