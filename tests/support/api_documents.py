"""Example documents of the processor's API, each with one story behind it."""

from __future__ import annotations

from typing import Any

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
DIGITS = tuple(str(digit) for digit in range(10))
EVEN_SHARES = (0.1,) * 10
SHIFTED_SHARES = (0.05, 0.05, 0.05, 0.55, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05)
RULES = ("latency", "errors", "prediction_drift", "confidence", "data_drift", "no_data")
STREAM_OF = {
    "prediction_drift": "prediction.label",
    "confidence": "prediction.confidence",
    "data_drift": "input.image.brightness",
}


def stream_document(name: str, *, state: str = "ok", reference: float = 0.5, current: float = 0.5) -> dict[str, Any]:
    """Builds the document of one stream; `reference` and `current` are its means."""
    is_label = name == "prediction.label"
    drifts = state == "drift"
    return {
        "stream": name,
        "state": state,
        "calibrating": False,
        "learned_count": 500 if state == "learning" else 2000,
        "required_count": 2000,
        "log10_evidence": 9.5 if drifts else 0.3,
        "log10_alarm_line": 7.7,
        "design_effect": 1.0,
        "detectable": None,
        "since_ns": START_NS if drifts else 0,
        "reference_count": 2000,
        "current_count": 1800,
        "mean": {"reference": None, "current": None} if is_label else {"reference": reference, "current": current},
        "bins": list(DIGITS) if is_label else ["low", "high"],
        "reference_shares": list(EVEN_SHARES) if is_label else [0.5, 0.5],
        "current_shares": list(SHIFTED_SHARES if drifts else EVEN_SHARES) if is_label else [0.5, 0.5],
        "contributions": [0.0] * (10 if is_label else 2),
        "thresholds": [],
        "statistics": {"psi": {"value": 0.02, "p_value": None, "noise": 0.01}},
    }


def model_document(
    *,
    state: str = "ok",
    drifting: tuple[str, ...] = (),
    confidence: float = 0.95,
    firing: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Builds the document of a model all of whose streams have `state`, but for those that drift."""

    def stream(name: str, **means: float) -> dict[str, Any]:
        return stream_document(name, state="drift" if name in drifting else state, **means)

    return {
        "name": "digits",
        "version": "1",
        "environment": "",
        "state": "drift" if drifting else state,
        "updated_ns": START_NS,
        "latency": {"p50_s": 21e-6, "p95_s": 43e-6, "p99_s": 0.0012, "threshold_s": 0.2, "over_ratio": 0.0},
        "throughput_per_s": 399.6,
        "error_ratio": 0.0,
        "predictions": 4321,
        "streams": [
            stream("prediction.label"),
            stream("prediction.confidence", reference=0.95, current=confidence),
            stream("input.image.brightness", reference=0.31, current=0.17 if drifting else 0.31),
        ],
        "rules": [{"rule": rule, "state": "firing" if rule in firing else "ok", "changed_ns": 0} for rule in RULES],
    }


def alert_document(rule: str, *, state: str = "firing", after_s: float = 0.0, onset_s: float = 0.0) -> dict[str, Any]:
    """Builds the document of an alert that changed to `state` that many seconds after START_NS."""
    onset_ns = START_NS + round(onset_s * SECOND_NS)
    return {
        "fingerprint": "0123456789abcdef",
        "key": "0123456789abcdef-1",
        "sequence": 1,
        "incident_ns": onset_ns,
        "first_severity": "critical",
        "joined": [],
        "news": [],
        "related": [],
        "silence": "",
        "missed": [],
        "model": "digits",
        "version": "1",
        "rule": rule,
        "state": state,
        "previous": "ok" if state == "firing" else "firing",
        "severity": "critical",
        "time_ns": START_NS + round(after_s * SECOND_NS),
        "onset_ns": onset_ns,
        "causes": [
            {
                "stream": STREAM_OF.get(rule, rule),
                "value": 0.45,
                "bound": 0.02,
                "reference": "3: 10 %",
                "current": "3: 55 %",
                "current_count": 1800,
                "reference_count": 2000,
                "onset_ns": onset_ns,
                "bins": [],
                "reference_shares": [],
                "current_shares": [],
            }
        ],
        "traces": [],
        "links": [],
        "web_url": "http://127.0.0.1:8080",
        "silence_command": f"otel-mlmon alert silence digits --rule {rule} --for 2h",
        "relearn_command": "",
        "text": f"digits {rule} {state}",
    }
