"""Where the steps are joined: OTLP → window → drift → alert → notify. What each does, it does not know.

Runs on the owner's thread (`owner.py`), which commits one transaction a turn. Alerts are written in the transaction of
the panes that raised them and handed to the notifiers after it: none is told that a restart would tell again, and none
that was decided is forgotten.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.lifecycle import AlertsRecord
from otel_mlmon.processor.detect.evaluator import Evaluator
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.receive.data_point import ModelLoaded, TelemetryItem
from otel_mlmon.processor.self_telemetry import SelfTelemetry
from otel_mlmon.processor.serve import documents
from otel_mlmon.processor.serve.otlp import GaugeValue
from otel_mlmon.processor.settings import Settings
from otel_mlmon.processor.state.records import decode, encode
from otel_mlmon.processor.state.sqlite import Store
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.reference_export import ModelReference
from otel_mlmon.processor.window.window import StreamKey, Window
from otel_mlmon.types import ModelKey

EVIDENCE: Final = "evidence"
ALERTS: Final = "alerts"
OUTBOX: Final = "outbox"
"""Alerts that are committed and not yet handed to the notifiers."""


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
        self._gauges: tuple[GaugeValue, ...] = ()
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
        """What each model is judged by since the last turn, by name and version; not to be changed."""
        return self._references

    def gauges(self) -> Iterable[GaugeValue]:
        """The gauges of the last turn."""
        return self._gauges

    def open(self) -> None:
        """Load the state, and hand on what was decided but perhaps not told.

        Raises:
            StoreError: The state on disk cannot be used.
        """
        self._store = Store(self._settings.storage_path)
        self._panes = WindowAggregator.load(
            self._store,
            settings_for=self._settings.model_settings,
            windows=self._settings.windows,
            max_streams=self._settings.max_streams,
            clock_ns=self._clock_ns,
        )
        self._monitor = Evaluator()
        for blob in self._store.load(EVIDENCE).values():
            saved = json.loads(blob)
            stream = StreamKey(ModelKey(*saved["model"]), saved["stream"])
            self._scores[stream] = documents.score_from_dict(saved["score"])
            if saved["state"] is not None:
                self._monitor.restore(stream, saved["state"])
        stored = self._store.load(ALERTS).get("")
        record = None if stored is None else decode(stored, AlertsRecord)
        self._alerts = self._settings.alerts(record, now_ns=self._clock_ns())
        self._outbox = {key: decode(blob, Alert) for key, blob in self._store.load(OUTBOX).items()}
        self.committed(is_busy=True)

    def apply(self, received: tuple[TelemetryItem, ...], /) -> None:
        """Count the points of one request into their panes, and take the references of models that were loaded."""
        became: Counter[tuple[str, str]] = Counter()
        for item in received:
            if isinstance(item, ModelLoaded):
                became["references", self._panes.announce(item)] += 1
            else:
                became["points", self._panes.add(item)] += 1
        for (what, outcome), count in became.items():
            self._telemetry.add(what, count, outcome=outcome)

    def advance(self) -> None:
        """Close the panes that are due, score them, and judge each by its model's rules, in the order of time."""
        now_ns = self._clock_ns()
        replaced = self._panes.replaced()
        windows = self._panes.close(now_ns)
        forgotten = dict.fromkeys(self._panes.forgotten())
        for stream in (*replaced, *forgotten):
            self._monitor.forget(stream)
            self._scores.pop(stream, None)
            self._scored.discard(stream)
            self._store.delete(EVIDENCE, _key_of(stream))
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
        self._panes.save(self._store)
        if self._scored or self._outbox or self._is_forgetting:
            self._store.put(ALERTS, "", encode(self._alerts.record()))
        for stream in self._scored:
            self._store.put(EVIDENCE, _key_of(stream), self._evidence(stream))
        for key in self._told:
            self._store.delete(OUTBOX, key)
        for key, alert in self._outbox.items():
            self._store.put(OUTBOX, key, encode(alert))
        self._store.commit()
        self._told.clear()
        self._is_forgetting = False

    def committed(self, *, is_busy: bool) -> None:
        """Hand committed alerts to the notifiers, and publish the documents."""
        is_changed = is_busy or bool(self._scored or self._outbox)
        self._scored.clear()
        while self._outbox:
            key, alert = self._outbox.popitem()
            self._told.append(key)
            self._telemetry.add("alerts", rule=alert.rule, state=alert.state.value)
            with guard("notify"):
                self._notify(alert)
        if is_changed:
            self._publish()

    def close(self) -> None:
        """Close the store; what was told is not told again at the next start."""
        with guard("close"):
            for key in self._told:
                self._store.delete(OUTBOX, key)
            self._store.commit()
        self._store.close()

    def _scored_panes(self, windows: list[Window]) -> dict[tuple[int, ModelKey], dict[StreamKey, tuple[Window, Score]]]:
        """The scores of each pane of each model, in the order of time."""
        line = self._settings.alarm_line(self._watched(windows))
        panes: dict[tuple[int, ModelKey], dict[StreamKey, tuple[Window, Score]]] = {}
        policies = ((window, self._settings.policy(window.stream)) for window in windows)
        watched = [(window, policy) for window, policy in policies if policy is not None]
        scores = self._monitor.observe_all(watched, log10_alarm_line=line)
        for (window, _), score in zip(watched, scores, strict=True):
            self._scores[window.stream] = score
            self._scored.add(window.stream)
            panes.setdefault((window.end_ns, window.stream.model), {})[window.stream] = (window, score)
        return panes

    def _watched(self, windows: list[Window]) -> int:
        """How many streams the false-alarm budget is over."""
        known = set(self._monitor.streams())
        return len(known | {window.stream for window in windows if window.reference is not None})

    def _evidence(self, stream: StreamKey) -> bytes:
        is_known = stream in self._monitor.streams()
        return _json(
            {
                "model": list(stream.model),
                "stream": stream.stream,
                "state": self._monitor.state(stream) if is_known else None,
                "score": documents.score_to_dict(self._scores[stream]),
            }
        )

    def _publish(self) -> None:
        rules = self._alerts.current()
        summaries = [self._panes.summary(model) for model in self._panes.models]
        references: dict[str, dict[str, ModelReference]] = {}
        for model in self._panes.models:
            references.setdefault(model.name, {})[model.version] = self._panes.reference(model)
        self._references = references
        document = documents.overview(summaries, self._scores, rules, self._alerts.alerts())
        self._document, self._gauges = document, tuple(documents.gauges(document, rules))


def _key_of(stream: StreamKey) -> str:
    return "\0".join((*stream.model, stream.stream))


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
