"""Joins the steps of the processor: receive, window, detect, alert, notify.

A data point goes through them in this order:

    receive    `apply`     a receiver hands over the points and loaded models of one request
       ↓
    window     `apply`     each point is added to an open pane: `WindowAggregator.add`
               `advance`   panes that the watermark has passed are closed: `close_panes` → `StreamWindow`
       ↓
    detect     `advance`   each window is scored against its reference: `DriftEvaluator.evaluate` → `DriftScore`
       ↓
    alert      `advance`   the rules of each model judge the scores of a pane: `evaluate_windows` → `Alert`
               `commit`    everything that changed is stored in one transaction
       ↓
    notify     `publish`   what changed is shown by the web port, and committed alerts and events go to their recipients

The state thread (`state/thread.py`) calls these for one batch of requests after another; panes close after a batch is
answered, and are stored with the next commit. An alert is stored in the transaction of the pane that raised it, and
stays stored until every recipient has it, or the dead letters.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from typing import Final, TypeAlias

from otel_mlmon import semconv
from otel_mlmon.errors import StoreError
from otel_mlmon.guard import guard
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.records import AlertStore, RuleStatus
from otel_mlmon.processor.alert.silence import AlertSilence, SilenceRequest
from otel_mlmon.processor.alert.version_change import VersionChange, describe_version_change
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.detect.version_test import find_moved_streams
from otel_mlmon.processor.evidence_log import EvidenceLog
from otel_mlmon.processor.notify.dispatcher import AlertDispatcher, OutboxEntry
from otel_mlmon.processor.notify.notifier import EmitEvent
from otel_mlmon.processor.receive.data_point import ModelLoaded, PointGroup, Rejections, TelemetryItem
from otel_mlmon.processor.records import OUTBOX, VERSION_CHANGES
from otel_mlmon.processor.self_telemetry import MetricValue, SelfTelemetry
from otel_mlmon.processor.serve import documents
from otel_mlmon.processor.serve.page.history import PageHistory, load_history, save_history
from otel_mlmon.processor.serve.publication import ModelView, PublishedState
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.state.instance import load_instance_id
from otel_mlmon.processor.state.repository import (
    Repository,
    commit_or_rollback,
    load_records,
    open_repository,
    put_records,
)
from otel_mlmon.processor.state.thread import ClockWork
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.outcome import REJECTED_OUTCOMES
from otel_mlmon.processor.window.progress import SteadyClock
from otel_mlmon.processor.window.reference_export import ModelReference, RelearnRequest
from otel_mlmon.processor.window.window import StreamKey, StreamWindow, VersionPair
from otel_mlmon.types import ModelKey

_LOG: Final = logging.getLogger("otel_mlmon.processor")

CLOCK_INTERVAL_NS: Final = 200_000_000
"""Interval at which is looked for what time alone changes in alerts."""

REFRESH_NS, REFRESH_RATIO = 1_000_000_000, 10
"""Interval at which models that change all the time are published, at least, and as a multiple of what that takes."""

StateItem: TypeAlias = TelemetryItem | RelearnRequest | SilenceRequest
"""An item that changes the state: it arrived in a request, or an administrator asks for it."""

RELEARNED: Final = "The reference is learned again, as an administrator asked."
REPLACED: Final = "The model came with another reference."
"""Why the alerts about streams end whose reference is another one now."""


class ProcessorPipeline:
    """Runs the steps of the processor on each request, and holds their state.

    Runs on: the state thread; `read`, `references`, `silences`, `gauges` and `publication`, `pending_points` on any.

    Args:
        settings: Of every step.
        dispatcher: Takes alerts to recipients.
        telemetry: The processor's own counters.
        emit_event: Sends an event, and returns at once; None while there is no endpoint.
        clock_ns: Unix nanoseconds.
        identify: Takes the `service.instance.id` of this processor when it is known, before any alert is handed over.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        *,
        dispatcher: AlertDispatcher,
        telemetry: SelfTelemetry,
        emit_event: EmitEvent | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        identify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._identify = identify
        self._settings = settings
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._emit_event = emit_event
        self._clock_ns = SteadyClock(clock_ns)
        self.history = PageHistory()
        """The past values that the web pages show."""
        self._unpublished: set[ModelKey] = set()
        """Models that changed since they were last published."""
        self._clock_due_ns = 0
        """When time alone may have changed alerts."""
        self._refresh_ns = 0
        """When models that changed are published at the latest, and those that time alone changes."""
        evaluator = DriftEvaluator(policy_for=settings.find_detection_policy, alarm_line_for=settings.find_alarm_line)
        self._evidence = EvidenceLog(evaluator)
        self.publication = PublishedState(evaluator.measure, max_gauge_streams=settings.max_gauge_streams)
        """The documents and gauges that the web port and the exporter show."""
        self._silences: tuple[AlertSilence, ...] = ()
        self._outbox: dict[str, OutboxEntry] = {}
        self._changed_alerts: set[str] = set()
        """Keys of the entries of the outbox that changed since the last commit, those that were removed too."""
        self._new_alerts: list[Alert] = []
        """Alerts that were not handed over yet, in order."""
        self._points: Counter[str] = Counter()
        """Points by outcome that the processor's own metrics do not count yet."""
        self._has_changed_alerts = False
        """Whether models were removed or silences changed since the last commit."""
        self._version_changes: dict[ModelKey, VersionChange] = {}
        """How each version that was new differs from the one before."""
        self._unstored_changes: set[ModelKey] = set()
        """Versions that were compared or removed since the last commit."""
        self._unsent_changes: list[VersionChange] = []

    def read(self) -> documents.Document:
        """Returns the published JSON document of all models, versions and alerts; not to be changed."""
        return self.publication.overview()

    def references(self) -> Mapping[str, Mapping[str, ModelReference]]:
        """Returns the published reference of each model version, by the model's id and its version."""
        return self.publication.references()

    def silences(self) -> tuple[AlertSilence, ...]:
        """Returns the silences of alerts that are active, to come, or ended of late."""
        return self._silences

    def gauges(self) -> Iterable[MetricValue]:
        """Returns the published gauges of all models."""
        return self.publication.gauges()

    @property
    def pending_points(self) -> int:
        """How many data points wait until their pane closes."""
        return self._windows.pending_points

    def open(self) -> None:
        """Loads the stored state, and delivers again the alerts that some recipient may not have.

        Raises:
            ConfigurationError: There is no repository of the configured name.
            StoreError: The stored state cannot be used.
        """
        self._repository = open_repository(self._settings.storage_engine, self._settings.storage_path)
        try:
            self._load_state()
        except BaseException:
            self._repository.close()  # so that it can be opened again
            raise

    def apply(self, items: tuple[StateItem, ...], /) -> Rejections:
        """Adds the points of one request, and handles its events and commands; returns points not counted, by reason.

        Raises:
            OverloadedError: Too many points wait until their pane closes; nothing of the request was applied.
        """
        outcomes = self._windows.add_points(item for item in items if isinstance(item, PointGroup))
        for item in items:
            if isinstance(item, RelearnRequest):
                self._relearn_references(item)
            elif isinstance(item, SilenceRequest):
                self._silences = self._alerts.announcer.apply_silence(item, self._clock_ns())
                self._has_changed_alerts = True
                self._refresh_ns = 0
            elif not isinstance(item, PointGroup):
                self._windows.add_provider(item)
                if isinstance(item, ModelLoaded):
                    self._telemetry.add(semconv.REFERENCES, outcome=self._windows.add_reference(item))
        self._points.update(outcomes)
        return {outcome: count for outcome, count in outcomes.items() if outcome in REJECTED_OUTCOMES}

    def advance(self, max_s: float = float("inf"), /) -> ClockWork:
        """Closes, scores and judges the panes that the watermark has passed, for `max_s` seconds or somewhat longer."""
        now_ns, ends_s = self._clock_ns(), time.monotonic() + max_s
        replaced = self._windows.pop_replaced_streams()
        windows = self._windows.close_panes(now_ns, is_late=lambda: time.monotonic() >= ends_s)
        removed = dict.fromkeys(self._windows.pop_removed_streams())
        self._evidence.drop_stream((*replaced, *removed))
        alerts = self._alerts.remove_streams(replaced, now_ns, REPLACED)
        for model in sorted({stream.model for stream in removed}.difference(self._windows.models)):
            alerts += self._alerts.remove_model(model, now_ns)
            self._has_changed_alerts = True
            if self._version_changes.pop(model, None) is not None:
                self._unstored_changes.add(model)
        # After a long time down, pending panes close in the same batch in which their model is removed.
        present = [window for window in windows if window.stream not in removed]
        for (event_ns, model), scores in self._score_panes(present).items():
            alerts += self._alerts.evaluate_windows(model, scores, now_ns, event_ns=event_ns)
        for pair in self._windows.pop_version_pairs():
            alerts += self._compare_versions(pair, now_ns)
        for model, uses in self._windows.provider_reports().items():
            alerts += self._alerts.judge_providers(model, uses, now_ns)
        unjudged = self._windows.unjudged_models  # their panes may say that they are not silent
        if present or alerts or now_ns >= self._clock_due_ns:
            self._clock_due_ns = now_ns + CLOCK_INTERVAL_NS
            alerts += self._alerts.advance_clock(now_ns, unjudged=unjudged)
        self._add_alerts(alerts)
        self._settle_alerts()
        return ClockWork(is_incomplete=bool(self._windows.unclosed_models), is_unsaved=bool(present or alerts))

    def commit(self, *, is_last: bool = False) -> None:
        """Stores everything that changed, in one transaction; `is_last` also what may stay unstored for minutes.

        Raises:
            StoreError: The repository refused it; the next commit tries again, with all of it.
        """
        with commit_or_rollback(self._repository):
            self._write_changes(self._repository, is_last=is_last)
            save_history(self.history, self._repository, is_last=is_last)
        self._changed_alerts.clear()
        self._unstored_changes.clear()
        self._evidence.mark_saved()
        self._alert_store.mark_saved()
        self._has_changed_alerts = False

    def publish(self, *, is_busy: bool) -> None:
        """Publishes the models that changed, while busy only those with new alerts, and hands on committed alerts."""
        self._unpublished |= self._evidence.changed | self._windows.pop_touched_models()
        self._evidence.changed.clear()
        new_alerts, self._new_alerts = self._new_alerts, []
        now_ns, alerted = self._clock_ns(), {alert.model_key for alert in new_alerts}
        is_due = now_ns >= self._refresh_ns
        models = alerted if is_busy and not is_due else alerted | self._unpublished
        with guard("publish"):  # first, so that whoever is alerted finds a page that says the same
            if is_due or models:
                self._publish_models(now_ns, models, is_due=is_due)
        for alert in new_alerts:
            if alert.key in self._outbox:
                with guard("notify"):
                    self._dispatcher.submit(self._outbox[alert.key])
            self._telemetry.add(semconv.ALERTS, rule=alert.rule, state=alert.state.value)
        changes, self._unsent_changes = self._unsent_changes, []
        for change in changes:
            with guard("notify"):
                if self._emit_event is not None:
                    self._emit_event(*change.build_event())
        for outcome, count in self._points.items():
            self._telemetry.add(semconv.WINDOW_POINTS, count, outcome=outcome)
        self._points.clear()

    def close(self) -> None:
        """Commits the last changes and closes the state store; settled alerts are not repeated at the next start."""
        with guard("close"):
            self._dispatcher.shutdown()
            self._settle_alerts()
            try:
                self.commit(is_last=True)
            except StoreError as error:
                _LOG.warning("The last commit failed; the next start replays what it would have stored: %s", error)
        self._repository.close()

    def _load_state(self) -> None:
        settings = self._settings
        self._identify(load_instance_id(self._repository))
        self._windows = WindowAggregator(
            settings_for=settings.find_model_settings,
            windows=settings.windows,
            max_models=settings.max_models,
            max_streams=settings.max_streams,
            max_series=settings.max_series,
            clock_ns=self._clock_ns,
        )
        self._windows.load(self._repository)
        self._evidence.load(self._repository, self._windows.find_stream, now_ns=self._clock_ns())
        changes = load_records(self._repository, VERSION_CHANGES).values()
        self._version_changes = {change.model: change for change in changes}
        load_history(self.history, self._repository)
        self._alert_store, now_ns = AlertStore(self._repository), self._clock_ns()
        self._alerts = settings.create_state_machine(self._alert_store.load_record(now_ns), now_ns=now_ns)
        self._silences = tuple(self._alerts.announcer.silences)
        self._outbox = load_records(self._repository, OUTBOX)
        self._dispatcher.start(self._alerts.list_notified_alerts())
        for entry in sorted(self._outbox.values(), key=lambda entry: entry.alert.sequence):
            self._dispatcher.submit(entry)
        self._unpublished.update(self._windows.models)
        self.publish(is_busy=False)

    def _write_changes(self, repository: Repository, *, is_last: bool) -> None:
        """Writes all changes since the last commit to the state store; `commit` marks them as stored afterwards."""
        self._windows.save(repository)
        changes = self._version_changes
        present = sorted(model for model in self._unstored_changes if model in changes)
        put_records(repository, VERSION_CHANGES, [(json.dumps(model), changes[model]) for model in present])
        judged = self._evidence.changed
        if judged or self._new_alerts or self._has_changed_alerts or is_last:
            has_news = bool(self._new_alerts) or self._has_changed_alerts or is_last
            self._alert_store.save_record(self._alerts.build_record(), judged, self._clock_ns(), has_news=has_news)
        self._evidence.save(repository, now_ns=self._clock_ns(), is_last=is_last)
        changed = {key: self._outbox[key] for key in self._changed_alerts if key in self._outbox}
        put_records(repository, OUTBOX, changed.items())
        repository.delete(OUTBOX.name, sorted(key for key in self._changed_alerts if key not in changed))
        repository.delete(VERSION_CHANGES.name, sorted(map(json.dumps, self._unstored_changes.difference(present))))

    def _settle_alerts(self) -> None:
        """Removes from the outbox the alerts that all their recipients have."""
        for name, key in self._dispatcher.pop_settled():
            if (entry := self._outbox.pop(key, None)) is None:
                continue
            self._changed_alerts.add(key)
            if notifiers := tuple(other for other in entry.notifiers if other != name):
                self._outbox[key] = replace(entry, notifiers=notifiers)

    def _compare_versions(self, pair: VersionPair, now_ns: int) -> list[Alert]:
        """Records how a new model version differs from the one before, and returns the alerts about the difference."""
        with guard("drift"):
            evidence = self._evidence
            moves = find_moved_streams(
                pair.windows,
                policy_of=evidence.evaluator.find_detection_policy,
                design_effect_of=lambda stream: evidence.find_design_effect(StreamKey(pair.before, stream.stream)),
            )
            change = describe_version_change(pair, moves)
            self._version_changes[pair.model] = change
            self._unstored_changes.add(pair.model)
            self._unsent_changes.append(change)
            _LOG.info("Model %s %s: %s", pair.model.name, pair.model.version, change.build_sentence)
            return self._alerts.add_version_change(change, now_ns)
        return []

    def _relearn_references(self, request: RelearnRequest) -> None:
        """Starts to learn references again, and ends the alerts that the old ones raised."""
        self._refresh_ns = 0
        streams = self._windows.relearn(request)
        self._evidence.drop_stream(streams)
        self._add_alerts(self._alerts.remove_streams(streams, self._clock_ns(), RELEARNED))

    def _add_alerts(self, alerts: Iterable[Alert]) -> None:
        """Adds alerts to the outbox, which is stored with the next commit."""
        names = self._dispatcher.names
        for alert in alerts:
            self._new_alerts.append(alert)
            if names:
                self._outbox[alert.key] = OutboxEntry(alert=alert, notifiers=names, queued_ns=self._clock_ns())
                self._changed_alerts.add(alert.key)

    def _score_panes(
        self, windows: list[StreamWindow]
    ) -> dict[tuple[int, ModelKey], list[tuple[StreamWindow, DriftScore]]]:
        """Scores windows of streams, and groups the scores by pane and model, in the order of time."""
        panes: dict[tuple[int, ModelKey], list[tuple[StreamWindow, DriftScore]]] = {}
        find_detectable = self._evidence.evaluator.find_detectable
        for window, score in self._evidence.score_panes(windows):
            is_drift = score.state == "drift"
            outcome = score.replace(detectable=find_detectable(window.stream)) if is_drift else score
            panes.setdefault((window.end_ns, window.stream.model), []).append((window, outcome))
        return panes

    def _publish_models(self, now_ns: int, changed: Set[ModelKey], *, is_due: bool) -> None:
        """Publishes models that changed, and where it is due all alert rules, which time alone changes too."""
        self._unpublished, began_ns = self._unpublished - changed, time.monotonic_ns()
        present = changed & set(self._windows.models)
        views: dict[ModelKey, ModelView | None] = dict.fromkeys(changed - present)
        detectable = self._evidence.evaluator.measure_detectable(present)
        for model in sorted(present):
            summary, scores = self._windows.summary(model), self._evidence.scores.get(model, {}).copy()
            views[model] = ModelView(
                summary=summary,
                scores=scores,
                detectable=detectable.get(model, {}),
                reference=self._windows.reference(model),
            )
            self.history.add(model, summary.updated_ns, *documents.build_history_values(summary, scores))
        rules: dict[ModelKey, list[RuleStatus]] = {}
        for status in self._alerts.list_current_alerts(None if is_due else changed):
            rules.setdefault(status.model, []).append(status)
        self.publication.publish_models(
            views, rules=rules, alerts=self._alerts.list_alerts(), changes=self._version_changes
        )
        if is_due:
            self._refresh_ns = now_ns + max(REFRESH_NS, REFRESH_RATIO * (time.monotonic_ns() - began_ns))
