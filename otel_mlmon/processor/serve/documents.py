"""Builds the JSON documents of the web port, and the gauges of `/metrics` and OTLP, from the state of all models.

Pure functions; nothing here decides anything.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.cause import describe_change
from otel_mlmon.processor.alert.document import build_alert_document
from otel_mlmon.processor.alert.records import RuleStatus
from otel_mlmon.processor.alert.version_change import VersionChange
from otel_mlmon.processor.detect import accuracy
from otel_mlmon.processor.detect.detectable import PROBABILITY, describe_detectable, describe_weakness
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.self_telemetry import MetricValue
from otel_mlmon.processor.window.summary import ModelSummary, StreamSummary
from otel_mlmon.types import ModelKey

Document = dict[str, Any]

_ACCURACY: Final = (
    (semconv.ACCURACY, "estimated"),
    (semconv.ACCURACY_LOW, "low"),
    (semconv.ACCURACY_HIGH, "high"),
)
_MODEL_STATES: Final = ("drift", "no_data", "error", "learning", "weak", "ok")
_UNSCORED: Final = DriftScore(state="learning", log10_evidence=0.0, log10_alarm_line=0.0)


def build_overview(
    entries: Mapping[ModelKey, Document], alerts: Iterable[Alert], changes: Mapping[ModelKey, VersionChange]
) -> Document:
    """Builds the JSON document of all models, all their versions, and all alerts.

    A model's document is of the version that was updated last; `versions` lists all versions, each with its difference
    from the version before; null of one that was not new, or has not enough predictions yet.

    Args:
        entries: The documents of all model versions.
        alerts: Active ones, and those that ended of late.
        changes: How new versions differ from those before.
    """
    differences = {model: change.to_dict() for model, change in changes.items()}
    models: dict[str, Document] = {}
    versions: dict[str, dict[str, Document]] = {}
    for model, document in sorted(entries.items(), key=lambda entry: (entry[1]["updated_ns"], entry[0])):
        key = model.id
        versions.setdefault(key, {})[model.version] = document
        listed = [{"version": name, "change": differences.get(model._replace(version=name))} for name in versions[key]]
        models[key] = {**document, "versions": listed}
    return {
        "models": models,
        "versions": versions,
        "alerts": [build_alert_document(alert) for alert in alerts],
    }


def build_model_document(
    summary: ModelSummary, scores: Mapping[str, DriftScore], rules: Iterable[RuleStatus]
) -> Document:
    """Builds the JSON document of one model version from the scores of its streams."""
    streams = [build_stream_document(stream, scores.get(stream.stream, _UNSCORED)) for stream in summary.streams]
    return {
        "name": summary.model.name,
        "version": summary.model.version,
        "environment": summary.model.environment,
        "state": _combine_stream_states(stream["state"] for stream in streams if stream["stream"] in scores),
        "updated_ns": summary.updated_ns,
        "latency": {
            "p50_s": summary.p50_s,
            "p95_s": summary.p95_s,
            "p99_s": summary.p99_s,
            "threshold_s": summary.latency_threshold_s,
            "over_ratio": summary.over_ratio,
        },
        "throughput_per_s": summary.calls_per_s,
        "error_ratio": summary.error_ratio,
        "predictions": summary.predictions,
        "open_predictions": summary.open_predictions,
        "late_predictions": summary.late_predictions,
        "accuracy": build_accuracy_document(summary, scores),
        "providers": [
            {"provider": use.provider, "first_ns": use.first_ns, "last_ns": use.last_ns}
            for use in summary.providers
            if not use.requested
        ],
        "fallbacks": [use._asdict() for use in summary.providers if use.requested],
        "drifting_streams": [
            stream["stream"] for stream in sorted(streams, key=_rank_by_evidence) if stream["changes"]
        ],
        "streams": streams,
        "rules": [
            {"rule": status.rule, "state": status.state.value, "changed_ns": status.changed_ns} for status in rules
        ],
    }


def build_history_values(
    summary: ModelSummary, scores: Mapping[str, DriftScore]
) -> tuple[list[float], dict[str, float]]:
    """Returns the present values for the history of a model version: its columns, and the evidence by stream."""
    accuracy_values = build_accuracy_document(summary, scores) or {}
    values = [
        summary.calls_per_s,
        summary.p50_s,
        summary.p95_s,
        summary.p99_s,
        summary.error_ratio,
        float(accuracy_values.get("estimated", math.nan)),
    ]
    evidence = {
        name: score.log10_evidence / max(score.log10_alarm_line, 1e-9)
        for name, score in scores.items()
        if score.log10_evidence > 0.0
    }
    return values, evidence


def build_accuracy_document(summary: ModelSummary, scores: Mapping[str, DriftScore]) -> Document | None:
    """Builds the JSON document of a model's estimated accuracy; None without labelled data or confidences."""
    calibration = summary.calibration
    if calibration is None:
        return None
    stream = summary.streams.find(semconv.STREAM_CONFIDENCE)
    if stream is None or len(stream.current_counts) != calibration.total.size:
        return None
    score = scores.get(stream.stream, _UNSCORED)
    counts = np.array(stream.current_counts, dtype=np.int64)
    with guard("serve.accuracy"):
        estimate = accuracy.estimate_accuracy(
            calibration.right, calibration.total, counts, design_effect=score.design_effect
        )
        if estimate is not None:
            return {
                "estimated": estimate.estimated,
                "low": estimate.low,
                "high": estimate.high,
                "level": accuracy.LEVEL,
                "n": estimate.n,
                "supported_ratio": estimate.supported_ratio,
                "labelled": {"accuracy": calibration.accuracy, "n": int(calibration.total.sum())},
            }
    return None


def build_stream_document(stream: StreamSummary, score: DriftScore) -> Document:
    """Builds the JSON document of one stream: its state, evidence, statistics and distribution."""
    return {
        "stream": stream.stream,
        "state": "error" if stream.fault else score.state,
        "fault": stream.fault,
        "calibrating": score.is_calibrating,
        "calibrated_ratio": score.calibrated_ratio,
        "learned_count": stream.learned,
        "required_count": stream.learn,
        "origin": stream.origin,
        "stationary": stream.is_stationary,
        "log10_evidence": score.log10_evidence,
        "log10_alarm_line": score.log10_alarm_line,
        "design_effect": score.design_effect,
        "detectable": build_detectable_document(score),
        "since_ns": score.since_ns,
        "reference_count": stream.reference_count,
        "current_count": stream.current_count,
        "mean": {"reference": stream.reference_mean, "current": stream.current_mean},
        "bins": list(stream.bins.names),
        "changes": list(_describe_stream_change(stream)) if score.state == "drift" else [],
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
            for name, value, p_value, noise in (
                score.statistics.rows() if score.statistics and stream.current_count else ()
            )
        },
    }


def build_detectable_document(score: DriftScore) -> Document | None:
    """Builds the JSON document on how small a drift of a stream would be found; None for a stream not judged."""
    detectable = score.detectable
    if detectable is None:
        return None
    reason, remedy = describe_weakness(
        detectable, design_effect=score.design_effect, reference_count=score.reference_count
    )
    return {
        "shift": _replace_nan(detectable.shift),
        "ratio": _replace_nan(detectable.ratio),
        "new_share": _replace_nan(detectable.new_share),
        "probability": PROBABILITY,
        "items_per_day": detectable.items_per_day,
        "daily_cycle": _replace_nan(detectable.daily_amplitude),
        "max_shift": detectable.max_shift,
        "sentence": describe_detectable(detectable),
        "weakness": detectable.weakness,
        "reason": reason,
        "remedy": remedy,
    }


def _replace_nan(number: float) -> float | None:
    return None if math.isnan(number) else number


def list_model_gauges(
    document: Document, scores: Mapping[str, DriftScore], admitted: Container[str]
) -> Iterator[MetricValue]:
    """Yields the gauges of a model version's document: states, evidence, statistics and window counts.

    Args:
        document: Of one model version.
        scores: Its scores by stream.
        admitted: The streams that have gauges.
    """
    model_attributes = _build_model_attributes(ModelKey(document["name"], document["version"], document["environment"]))
    for metric, key in _ACCURACY if document["accuracy"] is not None else ():
        yield MetricValue(metric=metric, value=document["accuracy"][key], attributes=model_attributes)
    for stream in document["streams"]:
        name = stream["stream"]
        if name not in admitted:
            continue
        attributes = {**model_attributes, semconv.DRIFT_STREAM: name}
        count, state = stream["current_count"], semconv.DRIFT_STATES[stream["state"]]
        yield MetricValue(metric=semconv.DRIFT_WINDOW_SIZE, value=count, attributes=attributes)
        yield MetricValue(metric=semconv.DRIFT_STATE, value=state, attributes=attributes)
        score = scores.get(name, _UNSCORED)
        if score.state == "learning" and not score.is_calibrating:
            continue
        evidence = score.log10_evidence - score.log10_alarm_line
        yield MetricValue(metric=semconv.DRIFT_EVIDENCE, value=evidence, attributes=attributes)
        if score.detectable is not None:
            # Where not even the largest shift would be found, all of the traffic stands for it.
            shift = 1.0 if math.isnan(score.detectable.shift) else score.detectable.shift
            yield MetricValue(metric=semconv.DRIFT_DETECTABLE, value=shift, attributes=attributes)
        for statistic_name, statistic in stream["statistics"].items():
            if math.isfinite(statistic["value"]):
                named = {**attributes, semconv.DRIFT_STATISTIC: statistic_name}
                yield MetricValue(metric=semconv.DRIFT_SCORE, value=statistic["value"], attributes=named)


def list_rule_gauges(rules: Iterable[RuleStatus]) -> Iterator[MetricValue]:
    """Yields the gauges that show the state of every alert rule."""
    for status in rules:
        attributes = {**_build_model_attributes(status.model), semconv.ALERT_RULE: status.rule}
        yield MetricValue(
            metric=semconv.ALERT_STATE, value=semconv.ALERT_STATES[status.state.value], attributes=attributes
        )


def _build_model_attributes(model: ModelKey) -> dict[str, str]:
    attributes = {
        semconv.MODEL_NAME: model.name,
        semconv.MODEL_VERSION: model.version,
        semconv.DEPLOYMENT_ENVIRONMENT: model.environment,
    }
    return {key: value for key, value in attributes.items() if value}


def _describe_stream_change(stream: StreamSummary) -> tuple[str, ...]:
    means = (stream.reference_mean, stream.current_mean)
    if stream.origin == "budget":
        return ()
    return describe_change(stream.stream, stream.bins, stream.reference_shares, stream.current_shares, means=means)


def _rank_by_evidence(stream: Document) -> tuple[float, str]:
    """Returns the sort key of a stream's document: the strongest evidence first, and capped evidence as equal."""
    return -round(stream["log10_evidence"] - stream["log10_alarm_line"], 2), stream["stream"]


def _combine_stream_states(statuses: Iterable[str]) -> str:
    """Returns the state of a model: the first of `_MODEL_STATES` that any of its streams has, else `learning`."""
    distinct = set(statuses)
    return next((state for state in _MODEL_STATES if state in distinct), "learning")
