"""Holds a snapshot of each model version's documents, gauges and references for the web port and the OTLP exporter.

The state thread hands over what changed, as values that never change again. Documents and gauges are made of them when
they are asked for, and remembered until their model changes: a processor that nobody looks at makes none, and the cost
of a commit does not depend on how many streams there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.records import RuleStatus
from otel_mlmon.processor.alert.version_change import VersionChange
from otel_mlmon.processor.detect.detectable import DetectableShift
from otel_mlmon.processor.detect.score import DriftScore, Statistics
from otel_mlmon.processor.self_telemetry import MetricValue
from otel_mlmon.processor.serve import documents
from otel_mlmon.processor.window.reference_export import ModelReference
from otel_mlmon.processor.window.summary import ModelSummary
from otel_mlmon.processor.window.window import ReferenceCounts
from otel_mlmon.types import Counts, ModelKey

MAX_GAUGE_STREAMS: Final = 2_000
"""Streams with gauges, unless configured otherwise."""

MeasureWindows = Callable[[Sequence[tuple[ReferenceCounts, Counts]]], list[Statistics]]


@dataclass(slots=True, kw_only=True)
class ModelView:
    """The snapshot of one model version, with the document and the gauges that were built from it."""

    summary: ModelSummary
    scores: Mapping[str, DriftScore]
    """By stream; nothing in it changes."""
    reference: ModelReference
    detectable: Mapping[str, DetectableShift] = field(default_factory=dict)
    """How small a drift of each stream would be found, which the scores say only once they are measured."""
    rules: Sequence[RuleStatus] = ()
    document: documents.Document | None = None
    gauges: list[MetricValue] | None = None
    is_measured: bool = False
    """Whether the scores have their detectable shifts, and the statistics of their rolling windows."""


@dataclass(slots=True)
class AdmittedStreams:
    """The limited number of streams that have gauges: the first that came, each for as long as it exists."""

    maximum: int
    models: dict[ModelKey, dict[str, None]] = field(default_factory=dict)
    count: int = 0

    def update(self, model: ModelKey, streams: Iterable[str]) -> None:
        """Admits new streams of a model to gauges while there is room, and removes those that are gone."""
        present = dict.fromkeys(streams)
        before = self.models.get(model, {})
        admitted = {stream: None for stream in before if stream in present}
        self.count -= len(before) - len(admitted)
        for stream in present:
            if stream not in admitted and self.count < self.maximum:
                admitted[stream] = None
                self.count += 1
        self.models[model] = admitted

    def remove(self, model: ModelKey) -> None:
        """Removes all streams of a model from those that have gauges."""
        self.count -= len(self.models.pop(model, {}))


class PublishedState:
    """The published snapshots of all model versions, from which documents, gauges and references are read.

    Runs on: `publish_models` on the state thread, everything else on any.

    Args:
        measure: Measures rolling windows by the known statistics.
        max_gauge_streams: Streams that have gauges, at most.
    """

    def __init__(self, measure: MeasureWindows, *, max_gauge_streams: int = MAX_GAUGE_STREAMS) -> None:
        self._measure = measure
        self._lock = threading.Lock()
        self._views: dict[ModelKey, ModelView] = {}
        self._admitted = AdmittedStreams(max_gauge_streams)
        self._alerts: list[Alert] = []
        self._changes: dict[ModelKey, VersionChange] = {}
        self._overview: documents.Document | None = None

    def publish_models(
        self,
        views: Mapping[ModelKey, ModelView | None],
        *,
        rules: Mapping[ModelKey, Sequence[RuleStatus]],
        alerts: list[Alert],
        changes: Mapping[ModelKey, VersionChange],
    ) -> None:
        """Replaces the published snapshots of model versions, rule states, alerts and version changes.

        Args:
            views: By model version that changed; None for one that was removed.
            rules: The states of the rules of model versions, of which any may have changed.
            alerts: All alerts that are shown, as they are now.
            changes: How new versions differ from those before.
        """
        with self._lock:
            for model, view in views.items():
                if view is None:
                    self._views.pop(model, None)
                    self._admitted.remove(model)
                    continue
                previous = self._views.get(model)
                view.rules = previous.rules if previous is not None else ()
                if previous is None or not previous.summary.streams.has_streams_of(view.summary.streams):
                    self._admitted.update(model, (stream.stream for stream in view.summary.streams))
                self._views[model] = view
            for model, statuses in rules.items():
                present = self._views.get(model)
                if present is not None and present.rules != statuses:
                    self._views[model] = replace(present, rules=statuses, document=None, gauges=None)
            self._alerts, self._changes, self._overview = alerts, dict(changes), None

    def overview(self) -> documents.Document:
        """Returns the JSON document of all models, versions and alerts; not to be changed."""
        with self._lock:
            if self._overview is None:
                self._measure_windows()
                entries = {model: self._get_document(view) for model, view in self._views.items()}
                self._overview = documents.build_overview(entries, self._alerts, self._changes)
            return self._overview

    def gauges(self) -> Iterator[MetricValue]:
        """Yields the gauges of all models' streams, as far as they are admitted, and of all alert rules.

        Of each model those of the version that was updated last.
        """
        with self._lock:
            self._measure_windows()
            newest: dict[str, ModelView] = {}
            for model, view in self._views.items():
                present = newest.get(model.id)
                if present is None or view.summary.updated_ns >= present.summary.updated_ns:
                    newest[model.id] = view
            values = [value for view in newest.values() for value in self._get_gauges(view)]
            rules = [status for view in self._views.values() for status in view.rules]
        yield from values
        yield from documents.list_rule_gauges(rules)

    @property
    def omitted_streams(self) -> int:
        """The number of streams without gauges, since others came first."""
        with self._lock:
            return sum(len(view.summary.streams) for view in self._views.values()) - self._admitted.count

    def references(self) -> dict[str, dict[str, ModelReference]]:
        """Returns the present reference of each model version, by the model's id and its version."""
        with self._lock:
            references: dict[str, dict[str, ModelReference]] = {}
            for model, view in self._views.items():
                references.setdefault(model.id, {})[model.version] = view.reference
            return references

    def _get_document(self, view: ModelView) -> documents.Document:
        if view.document is None:
            view.document = documents.build_model_document(view.summary, view.scores, view.rules)
        return view.document

    def _get_gauges(self, view: ModelView) -> list[MetricValue]:
        if view.gauges is None:
            admitted = self._admitted.models.get(view.summary.model, {})
            view.gauges = list(documents.list_model_gauges(self._get_document(view), view.scores, admitted))
        return view.gauges

    def _measure_windows(self) -> None:
        """Computes the drift statistics of all rolling windows that have none yet, many streams at once."""
        unmeasured = [view for view in self._views.values() if not view.is_measured]
        windows = [
            (view, stream.stream, (stream.reference, stream.current))
            for view in unmeasured
            for stream in view.summary.streams
            if stream.reference is not None
            and stream.current_count
            and _has_no_statistics(view.scores.get(stream.stream))
        ]
        measured = self._measure([pair for _, _, pair in windows]) if windows else []
        results = {(id(view), stream): result for (view, stream, _), result in zip(windows, measured, strict=True)}
        for view in unmeasured:
            view.scores = {
                stream: score.replace(statistics=results.get((id(view), stream), score.statistics)).with_detectable(
                    view.detectable.get(stream)
                )
                for stream, score in view.scores.items()
            }
            view.is_measured = True


def _has_no_statistics(score: DriftScore | None) -> bool:
    return score is not None and score.statistics is None
