"""Describes for people how the first predictions of a new model version differ from those of the version before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import (
    build_shift_cause,
    count_rolling_window,
    format_count,
    format_percent,
    rank_causes,
)
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import StreamWindow, VersionPair
from otel_mlmon.types import ModelKey


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionChange:
    """The difference between the first predictions of a model version and those of the version before."""

    model: ModelKey
    before: str
    """The version before; empty if it has no name."""
    time_ns: int
    """When the first predictions were complete, event time, Unix nanoseconds."""
    predictions: int
    compared: int
    """Streams that both versions have and that could be compared."""
    causes: tuple[AlertCause, ...]
    """The streams that moved, the largest move first."""
    absent: tuple[str, ...] = ()
    """Streams that only the version before has."""
    added: tuple[str, ...] = ()
    """Streams that only the new version has."""

    @property
    def severity(self) -> Literal["INFO", "WARN"]:
        """The severity of the difference between two model versions: INFO if there is none, otherwise WARN."""
        return "WARN" if self.causes or self.absent or self.added else "INFO"

    @property
    def text(self) -> str:
        """The difference between two model versions in one line for people; `no difference found` if there is none."""
        parts = [
            f"{cause.stream}: {cause.reference} → {cause.current} (total variation {format_percent(cause.value)})"
            for cause in self.causes
        ]
        parts += [f"{stream} is no longer sent" for stream in self.absent]
        parts += [f"{stream} is new" for stream in self.added]
        if not self.compared:
            parts.append("no stream could be compared")
        return "; ".join(parts) or "no difference found"

    def to_dict(self) -> dict[str, Any]:
        """Returns the difference between two model versions as plain values for JSON, as the API has it."""
        return {
            "before": self.before,
            "time_ns": self.time_ns,
            "predictions": self.predictions,
            "compared": self.compared,
            "text": self.text,
            "moved": [asdict(cause) for cause in self.causes],
            "absent": list(self.absent),
            "added": list(self.added),
        }

    @property
    def build_sentence(self) -> str:
        """The difference between two model versions in one line, with the number of predictions that were compared."""
        count, name = format_count(self.predictions), self.before or "without a name"
        return f"the first {count} predictions, held against version {name}: {self.text}"

    def build_event(self) -> tuple[str, Literal["INFO", "WARN"], str, dict[str, str | int | float | bool], int]:
        """Returns name, severity, body, attributes and time of the log event `ml.model.version_changed`."""
        body = f"{self.model.name} {self.model.version}: {self.build_sentence}"
        return semconv.EVENT_VERSION_CHANGED, self.severity, body, self._build_event_attributes(), self.time_ns

    def _build_event_attributes(self) -> dict[str, str | int | float | bool]:
        """Returns the attributes of `ml.model.version_changed`: plain values, with the largest move in full."""
        attributes: dict[str, str | int | float | bool] = {
            semconv.MODEL_NAME: self.model.name,
            semconv.MODEL_VERSION: self.model.version,
            semconv.DEPLOYMENT_ENVIRONMENT: self.model.environment,
            semconv.MODEL_VERSION_BEFORE: self.before,
        }
        attributes = {key: value for key, value in attributes.items() if value}
        attributes[semconv.VERSION_PREDICTIONS] = self.predictions
        attributes[semconv.VERSION_MOVED] = len(self.causes)
        if self.causes:
            cause = self.causes[0]
            attributes[semconv.DRIFT_STREAM] = cause.stream
            attributes[semconv.VERSION_VALUE] = cause.value
            attributes[semconv.VERSION_REFERENCE] = cause.reference
            attributes[semconv.VERSION_CURRENT] = cause.current
        return attributes


def describe_version_change(pair: VersionPair, moves: Iterable[tuple[StreamWindow, float]]) -> VersionChange:
    """Describes how a new model version differs from the one before.

    Args:
        pair: What was compared.
        moves: The windows that moved, each with the total variation that is tolerated.
    """
    name = f"version {pair.before.version}" if pair.before.version else "the version without a name"
    return VersionChange(
        model=pair.model,
        before=pair.before.version,
        time_ns=pair.time_ns,
        predictions=pair.predictions,
        compared=len(pair.windows),
        causes=rank_causes(_build_move_cause(window, tolerance, name) for window, tolerance in moves),
        absent=pair.absent,
        added=pair.added,
    )


def _build_move_cause(window: StreamWindow, tolerance: float, name: str) -> AlertCause:
    if window.reference is None:
        raise ValueError(f"{window.stream.stream} has no reference")
    score = DriftScore(state="ok", log10_evidence=0.0, log10_alarm_line=0.0, since_ns=window.start_ns)
    cause = build_shift_cause(window, window.reference, score, count_rolling_window(window), bound=tolerance)
    value, tolerated = format_percent(cause.value), format_percent(tolerance)
    sizes = f"n = {format_count(cause.current_count)}, before n = {format_count(cause.reference_count)}"
    summary = f"total variation {value} from {name}, tolerated {tolerated} ({sizes})"
    return replace(cause, summary=summary, origin="version")
