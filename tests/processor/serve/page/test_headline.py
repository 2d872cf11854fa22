"""What alerts are called by what they found, and why one is critical and another is not."""

from __future__ import annotations

from typing import Any

import pytest
from markupsafe import Markup

from otel_mlmon.processor.serve.page.headline import describe_alert_finding, explain_severity


def cause(**values: object) -> dict[str, Any]:
    return {"stream": "prediction.label", "origin": "learned", "reference": "class a: 60 %", "current": "70 %",
            "bins": [], "reference_shares": [], "current_shares": [], "value": 0.1, "bound": 0.02,
            "is_absent": False, "budget_spent": 0.0, **values}  # fmt: skip


def alert(rule: str, *causes: dict[str, Any], **values: object) -> dict[str, Any]:
    return {"rule": rule, "title": rule.replace("_", " "), "state": "firing", "severity": "warning",
            "causes": list(causes), **values}  # fmt: skip


def plain(text: Markup) -> str:
    return text.striptags().replace("\N{NO-BREAK SPACE}", " ")


AGE = {"stream": "input.age", "reference": "mean 41.3"}
SLOW = cause(
    stream="latency", origin="budget", reference="1 % allowed", current="7 % over 200 ms", value=0.07, bound=0.01
)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (alert("latency", SLOW), "7 % of calls take over 200 ms"),
        (alert("errors", cause(stream="errors", origin="budget", current="< 0.01 % failed")), "< 0.01 % of calls fail"),
        (alert("prediction_drift", cause(reference="class a: 9.7 %", current="21 %")),
         "21 % of predictions are a, 10 % in the reference"),
        (alert("prediction_drift", cause(stream="prediction.label.color", reference="class red: sky: 6 %")),
         "70 % of predictions of color are red: sky, 6 % in the reference"),
        (alert("prediction_drift", cause(bins=["a", "b"], reference_shares=[0.9, 0.1], current_shares=[1.0, 0.0])),
         "no prediction is b any more"),
        (alert("prediction_drift", cause(bins=["a", "b"], reference_shares=[0.9, 0.1], current_shares=[0.999, 0.001])),
         "hardly any prediction is b any more"),
        (alert("prediction_drift", cause(stream="prediction.value", reference="mean 2", current="mean 3.5")),
         "predictions are about 1.8 times larger"),
        (alert("data_drift", cause(**AGE, current="mean 496")), "input age is about 12 times larger"),
        (alert("data_drift", cause(**AGE, current="mean 3.44")), "input age is about 12 times smaller"),
        (alert("data_drift", cause(**AGE, current="mean 44")), "age: mean 41.3 → mean 44"),
        (alert("data_drift", cause(**AGE, current="mean -41.3")), "age: mean 41.3 → mean -41.3"),
        (alert("data_drift", cause(stream="input.age", reference="missing: 2 %", current="30 %"),
               cause(stream="input.b")),
         "30 % of age are missing, 2 % in the reference; 1 stream more moved"),
        (alert("data_drift", cause(stream="input.age", is_absent=True)), "age is no longer sent"),
        (alert("data_drift", cause(stream="input.age", reference="30 … 40: 10 %", current="45 %")),
         "age: 30 … 40: 10 % → 45 %"),
        (alert("confidence", cause(stream="prediction.confidence", reference="mean 0.83", current="mean 0.71")),
         "confidence: mean 0.83 → mean 0.71"),
        (alert("accuracy", cause(current="an estimated 81.2 %")), "estimated accuracy too low: an estimated 81.2 %"),
        (alert("execution_provider", cause(reference="CUDA (NVIDIA GPU)", current="CPU")),
         "runs on CPU instead of CUDA (NVIDIA GPU)"),
        (alert("version_drift", cause()), "70 % of predictions are a, 60 % in the version before"),
        (alert("no_data"), "no predictions come in"),
        (alert("latency", SLOW, state="no_data"), "no predictions come in"),
        (alert("latency", SLOW, state="error"), "the rule latency cannot be evaluated"),
        (alert("latency"), "too many calls are slow"),
        (alert("slow_start", cause(reference="1", current="2")), "slow start: predictions: 1 → 2"),
        (alert("data_drift", cause(stream="input.<b>\n", reference="mean \u202e1", current="mean <i>")),
         "&lt;b&gt;\\n: mean \\u202e1 → mean &lt;i&gt;"),
    ],
)  # fmt: skip
def test_an_alert_is_called_by_what_it_found(document: dict[str, Any], text: str) -> None:
    described = describe_alert_finding(document)
    shown = str(described).replace("<bdi>", "").replace("</bdi>", "").replace("\N{NO-BREAK SPACE}", " ")
    assert (shown if "&lt;b" in shown else plain(described)) == text


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (alert("latency", SLOW), "Warning: 7 % of the calls; critical only from 14 % on."),
        (alert("latency", {**SLOW, "value": 0.2}, severity="critical"),
         "Critical: 20 % of the calls; from 14 % on it is critical."),
        (alert("latency", {**SLOW, "budget_spent": 0.06}, severity="critical"),
         "Critical: 6 % of the month's budget is spent."),
        (alert("latency", {**SLOW, "value": 0.5, "bound": 0.4}),
         "Warning: 50 % of the calls; critical only from 70 % on."),
        (alert("data_drift", cause(value=0.1), cause(value=0.3), severity="critical"),
         "Critical: 30 % of the values moved; from 25 % on it is critical."),
        (alert("prediction_drift", cause(bins=["a", "b"], reference_shares=[0.903, 0.097], current_shares=[1.0, 0.0]),
               severity="critical"),
         "Critical: a class that was 9.7 % of the predictions is gone."),
        (alert("data_drift", cause(value=1.0, is_absent=True), severity="critical"),
         "Critical: nothing of it arrives."),
        (alert("execution_provider", cause(), severity="critical"),
         "Critical: a CPU usually takes many times as long."),
        (alert("execution_provider", cause()), "Warning: a lesser accelerator."),
        (alert("statistic", cause()), ""),
        (alert("no_data"), ""),
        (alert("latency", SLOW, state="error"), ""),
    ],
)  # fmt: skip
def test_why_an_alert_is_critical_or_a_warning(document: dict[str, Any], text: str) -> None:
    assert explain_severity(document).replace("\N{NO-BREAK SPACE}", " ") == text
