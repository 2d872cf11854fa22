"""Defines the types of the JSON documents of `/api/v1`, from which the OpenAPI document is built.

The documents themselves are built by `documents.py`; a test holds them against these types, key by key. Numbers that
are not finite are null.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.document import AlertDocument


class Latency(Struct):
    """Latency of a model's calls in its rolling window, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float
    threshold_s: float
    over_ratio: float


class LabelledData(Struct):
    """Accuracy of a model on the labelled rows that its reference was built from."""

    accuracy: float
    n: int


class EstimatedAccuracy(Struct):
    """Accuracy of a model that is to be expected in its rolling window, estimated without labels."""

    estimated: float
    low: float
    high: float
    level: float
    n: int
    supported_ratio: float
    labelled: LabelledData


class ProviderReport(Struct):
    """An execution provider that processes report a model to run on."""

    provider: str
    first_ns: int
    last_ns: int


class FallbackReport(Struct):
    """An execution provider that processes got for a model instead of the one that they asked for."""

    requested: str
    provider: str
    first_ns: int
    last_ns: int


class MeanPair(Struct):
    """Means of a stream in its reference and in its rolling window, in the stream's own unit."""

    reference: float | None
    current: float | None


class ThresholdDocument(Struct):
    """A drift statistic of a stream with the threshold of an alert rule, and whether it is breached."""

    statistic: str
    is_p_value: bool
    value: float
    bound: float
    needs: int
    verdict: Literal["ok", "breached", "too few values"]


class StatisticValue(Struct):
    """The value of a drift statistic of a stream, such as PSI."""

    value: float
    p_value: float | None
    noise: float | None


class DetectableDocument(Struct):
    """How small a drift of a stream would be found within a day, and why the stream is weak if it is."""

    shift: float | None
    ratio: float | None
    new_share: float | None
    probability: float
    items_per_day: float
    daily_cycle: float | None
    max_shift: float
    sentence: str
    weakness: str | None
    reason: str
    remedy: str


class StreamDocument(Struct):
    """One monitored distribution of a model version, such as that of an input feature, and its drift."""

    stream: str
    state: Literal["learning", "ok", "weak", "drift", "no_data", "error"]
    fault: str
    calibrating: bool
    calibrated_ratio: float
    learned_count: int
    required_count: int
    origin: str
    stationary: bool | None
    log10_evidence: float
    log10_alarm_line: float
    design_effect: float
    since_ns: int | None
    reference_count: int
    current_count: int
    mean: MeanPair
    bins: list[str]
    changes: list[str]
    reference_shares: list[float]
    current_shares: list[float]
    contributions: list[float]
    thresholds: list[ThresholdDocument]
    statistics: dict[str, StatisticValue]
    detectable: DetectableDocument | None


class RuleDocument(Struct):
    """An alert rule and its state."""

    rule: str
    state: Literal["ok", "pending", "firing", "no_data", "error"]
    changed_ns: int


class VersionDifference(Struct):
    """How the first predictions of a model version differ from those of the version before."""

    before: str
    time_ns: int
    predictions: int
    compared: int
    text: str
    moved: list[AlertCause]
    absent: list[str]
    added: list[str]


class VersionDocument(Struct):
    """A version of a model, and how it differs from the one before; null where it was not new."""

    version: str
    change: VersionDifference | None


class ModelDocument(Struct):
    """A model version: its state, streams, alert rules and latency."""

    name: str
    version: str
    environment: str
    state: Literal["drift", "no_data", "error", "learning", "weak", "ok"]
    updated_ns: int
    latency: Latency
    throughput_per_s: float
    error_ratio: float
    predictions: int
    open_predictions: int
    late_predictions: int
    accuracy: EstimatedAccuracy | None
    providers: list[ProviderReport]
    fallbacks: list[FallbackReport]
    drifting_streams: list[str]
    streams: list[StreamDocument]
    rules: list[RuleDocument]
    versions: list[VersionDocument]


class ModelsDocument(Struct):
    """Every model by its id: its name, and its environment after an @ where that is known."""

    models: dict[str, ModelDocument]


class AlertsDocument(Struct):
    """Alerts that are active, and those that ended of late."""

    alerts: list[AlertDocument]


class SilenceDocument(Struct):
    """A silence: a time in which nobody is notified of some alerts."""

    id: str
    model: str
    rule: str
    start_ns: int
    end_ns: int
    author: str
    reason: str
    is_active: bool


class AddedSilenceDocument(SilenceDocument):
    """A silence that was added, and the known models that it applies to."""

    models: list[str]


class SilencesDocument(Struct):
    """Silences that are active or to come, and those that ended of late."""

    silences: list[SilenceDocument]


class SilenceBody(Struct):
    """The body of a request to add a silence."""

    model: str
    duration_s: float
    author: str
    rule: str = "*"
    reason: str = ""


class ErrorDocument(Struct, omit_defaults=True):
    """Why a request was refused or failed."""

    error: str
    reason: str = ""
    versions: list[str] = []


class RelearnedDocument(Struct):
    """The streams of a model whose references are learned again."""

    model: str
    version: str
    streams: list[str]


class HealthDocument(Struct):
    """Whether the processor runs, or accepts telemetry."""

    status: Literal["ok", "not ready"]


class ReferenceDocument(Struct):
    """A reference profile of a model, as `otel-mlmon reference build` writes it."""

    format: str
    version: int
    model: dict[str, str]
    created: str
    streams: dict[str, dict[str, Any]]
    calibration: dict[str, Any] | UnsetType = UNSET
    unstationary: list[str] | UnsetType = UNSET
    design_effects: dict[str, dict[str, Any]] | UnsetType = UNSET


class SetupDocument(Struct):
    """How the processor is set up, what has arrived, and who is notified; for its own page and for `doctor`."""

    instance: dict[str, str]
    addresses: dict[str, str | None]
    received: dict[str, dict[str, int]]
    limits: list[dict[str, str | int]]
    notifiers: list[dict[str, Any]]
    pane_s: float
    recent_s: float
    """The window of rates, latency percentiles and error ratios, seconds."""
    rolling_s: float
    alert_for_s: float
