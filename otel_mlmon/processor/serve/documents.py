"""What the processor knows, as documents: the JSON of the web port and the gauges of `/metrics` and OTLP.

Pure functions of what the steps last said; nothing here decides anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.lifecycle import RuleStatus
from otel_mlmon.processor.alert.message import describe_change, format_alert
from otel_mlmon.processor.detect import accuracy
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.serve.otlp import GaugeValue
from otel_mlmon.processor.window.model_windows import ModelSummary
from otel_mlmon.processor.window.stream import StreamSummary
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.types import ModelKey

Document = dict[str, Any]

_ACCURACY: Final = (
    (semconv.ACCURACY, "estimated"),
    (semconv.ACCURACY_LOW, "low"),
    (semconv.ACCURACY_HIGH, "high"),
)
_NOTHING_YET: Final = Score(status="learning", log10_evidence=0.0, log10_alarm_line=0.0)


def overview(
    summaries: Iterable[ModelSummary],
    scores: Mapping[StreamKey, Score],
    rules: Iterable[RuleStatus],
    alerts: Iterable[Alert],
) -> Document:
    """`{"models": {name: document}, "alerts": [document]}`.

    A model's document is of the version that was updated last; `versions` names all that are known.
    """
    by_model: dict[ModelKey, list[RuleStatus]] = {}
    for status in rules:
        by_model.setdefault(status.model, []).append(status)
    models: dict[str, Document] = {}
    for summary in sorted(summaries, key=lambda summary: summary.updated_ns):
        key = summary.model
        older = models.get(key.name, {"versions": []})["versions"]
        document = model_document(summary, scores, by_model.get(key, []))
        models[key.name] = {**document, "versions": [*older, key.version]}
    return {"models": models, "alerts": [{**alert.to_dict(), "text": format_alert(alert)} for alert in alerts]}


def model_document(summary: ModelSummary, scores: Mapping[StreamKey, Score], rules: Iterable[RuleStatus]) -> Document:
    """One version of one model."""
    streams = [
        stream_document(stream, scores.get(StreamKey(summary.model, stream.stream), _NOTHING_YET))
        for stream in summary.streams
    ]
    return {
        "name": summary.model.name,
        "version": summary.model.version,
        "status": _worst(stream["status"] for stream in streams),
        "updated_ns": summary.updated_ns,
        "latency": {
            "p50_s": summary.p50_s,
            "p95_s": summary.p95_s,
            "p99_s": summary.p99_s,
            "budget_s": summary.latency_threshold_s,
            "over_ratio": summary.over_ratio,
        },
        "throughput_per_s": summary.calls_per_s,
        "error_ratio": summary.error_ratio,
        "predictions": summary.predictions,
        "accuracy": accuracy_document(summary, scores),
        "moved": [stream["stream"] for stream in sorted(streams, key=_margin) if stream["words"]],
        "streams": streams,
        "rules": [
            {"rule": status.rule, "state": status.state.value, "changed_ns": status.changed_ns} for status in rules
        ],
    }


def accuracy_document(summary: ModelSummary, scores: Mapping[StreamKey, Score]) -> Document | None:
    """The accuracy to expect of the rolling window; None without labelled data or confidences."""
    calibration = summary.calibration
    stream = next((stream for stream in summary.streams if stream.stream == semconv.STREAM_CONFIDENCE), None)
    if calibration is None or stream is None or len(stream.current_counts) != calibration.total.size:
        return None
    score = scores.get(StreamKey(summary.model, stream.stream), _NOTHING_YET)
    window = np.array(stream.current_counts, dtype=np.int64)
    with guard("accuracy"):
        found = accuracy.estimate(calibration.right, calibration.total, window, design_effect=score.design_effect)
        if found is not None:
            return {
                "estimated": found.estimated,
                "low": found.low,
                "high": found.high,
                "level": accuracy.LEVEL,
                "n": found.n,
                "supported_ratio": found.supported_ratio,
                "labelled": {"accuracy": calibration.accuracy, "n": int(calibration.total.sum())},
            }
    return None


def stream_document(stream: StreamSummary, score: Score) -> Document:
    """One stream."""
    return {
        "stream": stream.stream,
        "status": score.status,
        "calibrating": score.is_calibrating,
        "learned": stream.learned,
        "learn": stream.learn,
        "origin": stream.origin,
        "stationary": stream.is_stationary,
        "log10_evidence": score.log10_evidence,
        "log10_alarm_line": score.log10_alarm_line,
        "design_effect": score.design_effect,
        "since_ns": score.since_ns,
        "reference_count": stream.reference_count,
        "current_count": stream.current_count,
        "mean": {"reference": stream.reference_mean, "current": stream.current_mean},
        "bins": list(stream.bins.names),
        "words": list(_words(stream)) if score.status == "drift" else [],
        "reference_shares": list(stream.reference_shares),
        "current_shares": list(stream.current_shares),
        "contributions": list(score.contributions),
        "thresholds": [
            {
                "statistic": verdict.statistic,
                "is_p_value": verdict.is_p_value,
                "value": verdict.value,
                "bound": verdict.bound,
                "needs": verdict.min_count,
                "verdict": verdict.verdict,
            }
            for verdict in score.thresholds
        ],
        "statistics": {
            name: {"value": value, "p_value": p_value, "noise": noise}
            for name, value, p_value, noise in score.statistics.rows()
        },
    }


def gauges(document: Document, rules: Iterable[RuleStatus]) -> Iterator[GaugeValue]:
    """What is sent on: scores, evidence, window counts, states."""
    for model in document["models"].values():
        common = {semconv.MODEL_NAME: model["name"]}
        if model["version"]:
            common[semconv.MODEL_VERSION] = model["version"]
        for metric, key in _ACCURACY if model["accuracy"] is not None else ():
            yield GaugeValue(metric=metric.name, value=model["accuracy"][key], attributes=common)
        for stream in model["streams"]:
            of_stream = {**common, semconv.DRIFT_STREAM: stream["stream"]}
            yield GaugeValue(
                metric=semconv.DRIFT_WINDOW_COUNT.name, value=stream["current_count"], attributes=of_stream
            )
            state = semconv.DRIFT_STATES[stream["status"]]
            yield GaugeValue(metric=semconv.DRIFT_STATE.name, value=state, attributes=of_stream)
            if stream["status"] == "learning" and not stream["calibrating"]:
                continue
            yield GaugeValue(
                metric=semconv.DRIFT_EVIDENCE.name,
                value=stream["log10_evidence"] - stream["log10_alarm_line"],
                attributes=of_stream,
            )
            for name, statistic in stream["statistics"].items():
                if math.isfinite(statistic["value"]):
                    yield GaugeValue(
                        metric=semconv.DRIFT_SCORE.name,
                        value=statistic["value"],
                        attributes={**of_stream, semconv.DRIFT_STATISTIC: name},
                    )
    for status in rules:
        attributes = {semconv.MODEL_NAME: status.model.name, semconv.ALERT_RULE: status.rule}
        if status.model.version:
            attributes[semconv.MODEL_VERSION] = status.model.version
        yield GaugeValue(
            metric=semconv.ALERT_STATE.name, value=semconv.ALERT_STATES[status.state.value], attributes=attributes
        )


def _words(stream: StreamSummary) -> tuple[str, ...]:
    means = (stream.reference_mean, stream.current_mean)
    if stream.origin == "budget":
        return ()
    return describe_change(stream.stream, stream.bins, stream.reference_shares, stream.current_shares, means=means)


def _margin(stream: Document) -> tuple[float, str]:
    """The strongest evidence first; capped evidence is equal."""
    return -round(stream["log10_evidence"] - stream["log10_alarm_line"], 2), stream["stream"]


def _worst(statuses: Iterable[str]) -> str:
    """`drift` if any is; else `learning` while any learns; else `ok`."""
    known = set(statuses)
    if "drift" in known:
        return "drift"
    return "ok" if known == {"ok"} else "learning"
