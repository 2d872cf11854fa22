"""Where the steps are joined: OTLP → window → drift → alert → notify. What each does, it does not know.

Runs on the owner's thread (`owner.py`), which commits one transaction a turn. Alerts are written in the transaction of
the panes that raised them and handed to the notifiers after it: none is told that a restart would tell again, and none
that was decided is forgotten.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.lifecycle import AlertsRecord
from otel_mlmon.processor.detect.evaluator import Evaluator
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.detect.state import StreamState
from otel_mlmon.processor.receive.data_point import ModelLoaded, TelemetryItem
from otel_mlmon.processor.self_telemetry import MetricValue, SelfTelemetry
from otel_mlmon.processor.serve import documents
from otel_mlmon.processor.settings import Settings
from otel_mlmon.processor.state.records import RecordKind
from otel_mlmon.processor.state.repository import load_records, open_repository, put_records
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.reference_export import ModelReference
from otel_mlmon.processor.window.window import StreamKey, Window
from otel_mlmon.types import ModelKey

ALERTS: Final = RecordKind("alerts", AlertsRecord)
OUTBOX: Final = RecordKind("outbox", Alert)
"""Alerts that are committed and not yet handed to the notifiers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """What is stored of a stream between turns: its last score, and its evidence if there is any."""

    stream: StreamKey
    score: Score
    state: StreamState | None


EVIDENCE: Final = RecordKind("evidence", StreamRecord)


class Pipeline:
    """The state of all steps, and the way through them.

    Runs on: the owner's thread; `read`, `references` and `gauges` on any.

    Args:
        settings: What the steps are told.
        notify: What comes after an alert; must not wait.
        telemetry: The processor's own counters.
        clock_ns: Unix nanoseconds.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        notify: Callable[[Alert], None],
        telemetry: SelfTelemetry,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._notify = notify
        self._telemetry = telemetry
        self._clock_ns = clock_ns
        self._document: documents.Document = {"models": {}, "alerts": []}
        self._references: dict[str, dict[str, ModelReference]] = {}
        self._gauges: tuple[MetricValue, ...] = ()
        self._scores: dict[StreamKey, Score] = {}
        self._scored: set[StreamKey] = set()
        self._outbox: dict[str, Alert] = {}
        self._told: list[str] = []
        self._is_forgetting = False
        """Whether models were forgotten since the last commit."""

    def read(self) -> documents.Document:
        """The documents of the last turn; not to be changed."""
        return self._document

    def references(self) -> Mapping[str, Mapping[str, ModelReference]]:
        """What each model is judged by since the last turn, by id and version; not to be changed."""
        return self._references

    def gauges(self) -> Iterable[MetricValue]:
        """The gauges of the last turn."""
        return self._gauges

    def open(self) -> None:
        """Load the state, and hand on what was decided but perhaps not told.

        Raises:
            StoreError: The state on disk cannot be used.
        """
        settings = self._settings
        self._repository = open_repository(settings.storage_engine, settings.storage_path)
        self._windows = WindowAggregator(
            settings_for=settings.model_settings,
            windows=settings.windows,
            max_streams=settings.max_streams,
            clock_ns=self._clock_ns,
        )
        self._windows.load(self._repository)
        self._evaluator = Evaluator(policy_for=settings.policy, alarm_line_for=settings.alarm_line)
        for record in load_records(self._repository, EVIDENCE).values():
            self._scores[record.stream] = record.score
            if record.state is not None:
                self._evaluator.restore(record.stream, record.state)
        alerts = load_records(self._repository, ALERTS).get("")
        self._alerts = settings.alerts(alerts, now_ns=self._clock_ns())
        self._outbox = load_records(self._repository, OUTBOX)
        self.committed(is_busy=True)

    def apply(self, received: tuple[TelemetryItem, ...], /) -> None:
        """Count the points of one request into their panes, and take the references of models that were loaded."""
        points: Counter[str] = Counter()
        for item in received:
            if isinstance(item, ModelLoaded):
                self._telemetry.add(semconv.REFERENCES, outcome=self._windows.add_reference(item))
            else:
                points[self._windows.add(item)] += 1
        for outcome, count in points.items():
            self._telemetry.add(semconv.WINDOW_POINTS, count, outcome=outcome)

    def advance(self) -> None:
        """Close the panes that are due, score them, and judge each by its model's rules, in the order of time."""
        now_ns = self._clock_ns()
        replaced = self._windows.pop_replaced_streams()
        windows = self._windows.close_panes(now_ns)
        forgotten = dict.fromkeys(self._windows.pop_removed_streams())
        for stream in (*replaced, *forgotten):
            self._evaluator.forget(stream)
            self._scores.pop(stream, None)
            self._scored.discard(stream)
            self._repository.delete(EVIDENCE.name, [_key_of(stream)])
        alerts: list[Alert] = []
        for gone in dict.fromkeys(stream.model for stream in forgotten):
            alerts += self._alerts.forget(gone, now_ns)
            self._is_forgetting = True
        # After a long time down, panes that waited close in the very turn in which their model is forgotten.
        known = [window for window in windows if window.stream not in forgotten]
        for (_, model), scores in self._scored_panes(known).items():
            alerts += self._alerts.evaluate(model, scores, now_ns)
        alerts += self._alerts.tick(now_ns)
        self._outbox |= {f"{now_ns:020d}-{uuid.uuid4().hex}": alert for alert in alerts}

    def commit(self) -> None:
        """Everything that changed, in one transaction.

        Raises:
            StoreError: The disk refused it.
        """
        self._windows.save(self._repository)
        if self._scored or self._outbox or self._is_forgetting:
            put_records(self._repository, ALERTS, [("", self._alerts.record())])
        put_records(self._repository, EVIDENCE, [(_key_of(stream), self._evidence(stream)) for stream in self._scored])
        if self._told:
            self._repository.delete(OUTBOX.name, self._told)
        put_records(self._repository, OUTBOX, self._outbox.items())
        self._repository.commit()
        self._told.clear()
        self._is_forgetting = False

    def committed(self, *, is_busy: bool) -> None:
        """Hand committed alerts to the notifiers, and publish the documents."""
        is_changed = is_busy or bool(self._scored or self._outbox)
        self._scored.clear()
        while self._outbox:
            key, alert = self._outbox.popitem()
            self._told.append(key)
            self._telemetry.add(semconv.ALERTS, rule=alert.rule, state=alert.state.value)
            with guard("notify"):
                self._notify(alert)
        if is_changed:
            self._publish()

    def close(self) -> None:
        """Close the store; what was told is not told again at the next start."""
        with guard("close"):
            self._repository.delete(OUTBOX.name, self._told)
            self._repository.commit()
        self._repository.close()

    def _scored_panes(self, windows: list[Window]) -> dict[tuple[int, ModelKey], dict[StreamKey, tuple[Window, Score]]]:
        """The scores of each pane of each model, in the order of time."""
        panes: dict[tuple[int, ModelKey], dict[StreamKey, tuple[Window, Score]]] = {}
        for window, score in self._evaluator.evaluate(windows):
            self._scores[window.stream] = score
            self._scored.add(window.stream)
            panes.setdefault((window.end_ns, window.stream.model), {})[window.stream] = (window, score)
        return panes

    def _evidence(self, stream: StreamKey) -> StreamRecord:
        state = self._evaluator.state(stream) if stream in self._evaluator.streams() else None
        return StreamRecord(stream=stream, score=self._scores[stream], state=state)

    def _publish(self) -> None:
        rules = self._alerts.current()
        summaries = [self._windows.summary(model) for model in self._windows.models]
        references: dict[str, dict[str, ModelReference]] = {}
        for model in self._windows.models:
            references.setdefault(documents.model_id(model), {})[model.version] = self._windows.reference(model)
        self._references = references
        document = documents.overview(summaries, self._scores, rules, self._alerts.alerts())
        self._document, self._gauges = document, tuple(documents.gauges(document, self._scores, rules))


def _key_of(stream: StreamKey) -> str:
    return "\0".join((*stream.model, stream.stream))
