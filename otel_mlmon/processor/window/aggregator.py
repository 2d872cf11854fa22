"""Collects data points into panes of event time, and turns each closed pane into one window a stream.

A pane (start, end] holds the points whose time is in it, since a point counts what came before its time. It closes when
the model's watermark (`progress.py`) is the allowed lateness past its end, or no point was received for that long. A
point for a closed pane is late: it is added to the pane's counts and to what is reported, and is no evidence. A point
from the future belongs to the pane of its arrival.

Runs on: the state thread.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor.receive.data_point import DataPoint, ModelLoaded, ProviderFallback
from otel_mlmon.processor.state.repository import Repository
from otel_mlmon.processor.window.embedded_reference import decode_reference
from otel_mlmon.processor.window.expiry import remove_ended_series, remove_stale
from otel_mlmon.processor.window.model_windows import ClosedPane, ModelWindows
from otel_mlmon.processor.window.outcome import Limit, PointOutcome, ReferenceOutcome
from otel_mlmon.processor.window.progress import ModelProgress
from otel_mlmon.processor.window.providers import ProviderUse
from otel_mlmon.processor.window.records import load_state, save_state
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.reference_export import ModelReference, RelearnRequest
from otel_mlmon.processor.window.series import (
    COUNTERS,
    DELTA,
    Point,
    PointValue,
    Series,
    SeriesKey,
    SeriesState,
    list_streams,
)
from otel_mlmon.processor.window.state import MAX_EMBEDDED_REFERENCES, EmbeddedReference, WindowState
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.processor.window.summary import ModelSummary
from otel_mlmon.processor.window.versions import begin_introduction, pair_versions
from otel_mlmon.processor.window.window import StreamKey, VersionPair, Window, WindowSettings
from otel_mlmon.types import ModelKey

_LOG: Final = logging.getLogger("otel_mlmon.processor")

FREE_AFTER_NS: Final = 300_000_000_000
"""Silence of a sender after which its series make room where there is none."""
FREE_INTERVAL_NS: Final = 10_000_000_000
"""Interval at which room is sought where there is none, at most."""
CLOCK_SLACK_NS: Final = 5_000_000_000
"""The tolerated difference, either way, between a sender's clock and the processor's."""
EXPIRY_INTERVAL_NS: Final = 60_000_000_000
"""Interval at which what is stale is searched for, at most."""


class WindowAggregator:
    """Collects the data points of all models into panes, and makes windows of the panes that close.

    Args:
        settings_for: Returns the settings of a model; called once a model.
        windows: Lengths of time.
        max_models: Model versions; points of new ones beyond are rejected.
        max_streams: Drift streams over all models, likewise.
        max_series: Series over all senders, likewise.
        clock_ns: Unix nanoseconds.
    """

    def __init__(
        self,
        *,
        settings_for: Callable[[ModelKey], ModelWindowSettings] = lambda _: ModelWindowSettings(),
        windows: WindowSettings | None = None,
        max_models: int = 1_000,
        max_streams: int = 10_000,
        max_series: int = 200_000,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._state = WindowState(settings_for=settings_for, windows=windows or WindowSettings(), started_ns=clock_ns())
        self._model_limit = Limit("max_models", max_models, "model versions")
        self._stream_limit = Limit("max_streams", max_streams, "streams")
        self._series_limit = Limit("max_series", max_series, "series")
        self._clock_ns = clock_ns
        self._removed_streams: list[StreamKey] = []
        self._replaced_streams: list[StreamKey] = []
        self._expires_ns = 0
        self._frees_ns = 0
        self._resumed_ns = 0
        """When this process loaded the state: nothing becomes stale while no processor runs."""
        self.counts: Counter[PointOutcome] = Counter()
        """Points by outcome, since this process started."""
        self.clamped = 0
        """Points from the future, counted as of now."""
        self.resets = 0
        """Totals that fell or changed their buckets."""

    def load(self, repository: Repository) -> None:
        """Restores the state of all windows from the state store, if there is one, under the present settings.

        Raises:
            StoreError: The repository cannot be read.
        """
        self._resumed_ns = self._clock_ns()
        load_state(self._state, repository, now_ns=self._resumed_ns)
        for model in self._state.models.values():
            model.resumed_ns = self._resumed_ns

    def save(self, repository: Repository) -> None:
        """Writes the changes of all windows since the last save; durable after `repository.commit()`.

        Raises:
            StoreError: The repository refused it. After a rollback the next save writes what changed again.
        """
        save_state(self._state, repository, now_ns=self._clock_ns())

    def add_points(self, points: Iterable[DataPoint]) -> Counter[PointOutcome]:
        """Adds the data points of one request to their panes; returns the number of points by outcome."""
        self._state.request += 1
        now_ns = self._clock_ns()
        outcomes = Counter([self._add(point, now_ns) for point in points])
        self.counts.update(outcomes)
        return outcomes

    def add(self, point: DataPoint) -> PointOutcome:
        """Adds a data point to its pane, or drops it; returns the outcome."""
        outcome = self._add(point, self._clock_ns())
        self.counts[outcome] += 1
        return outcome

    def add_reference(self, loaded: ModelLoaded) -> ReferenceOutcome:
        """Adds the reference profile that a loaded model carries, or refuses it; returns the outcome.

        Of two references of one model version the one that was made later counts, in whatever order and however often
        they come. Evidence against the earlier reference of a stream is no evidence against the later one.
        """
        if not loaded.reference:
            return "none"
        present = self._state.embedded.get(loaded.model)
        if present is not None and present[0].text == loaded.reference:
            return "unchanged"
        profile = decode_reference(loaded)
        if profile is None:
            return "refused"
        reference = EmbeddedReference(loaded.model, loaded.reference, self._clock_ns())
        if present is not None and (profile.created, reference.text) < (present[1].created, present[0].text):
            return "older"
        if loaded.model not in self._state.models and len(self._state.embedded) >= MAX_EMBEDDED_REFERENCES:
            return "overflow"
        self._replaced_streams += self._state.add_embedded(reference, profile)
        name, version, _ = loaded.model
        text = "Model %s %s carries a reference, made %s: its streams are judged by it."
        _LOG.info(text, name, version, profile.created)
        return "accepted"

    def relearn(self, request: RelearnRequest) -> list[StreamKey]:
        """Starts to learn references of a model again; returns the streams, whose earlier evidence is void."""
        model = self._state.models.get(request.model)
        streams = model.relearn(request.streams) if model is not None else []
        self._state.changes.streams.update(streams)
        self._state.touched.add(request.model)
        return streams

    def add_provider(self, event: ModelLoaded | ProviderFallback) -> None:
        """Records the execution provider that a process runs a model on; a repeated report changes nothing."""
        self._state.add_provider(event, self._clock_ns())

    def close_panes(self, now_ns: int) -> list[Window]:
        """Closes the panes that the watermark has passed, and returns their windows, in the order of event time.

        Args:
            now_ns: The time by our clock, Unix nanoseconds.
        """
        state, windows = self._state, list[Window]()
        for model in state.models.values():
            if not model.is_due(now_ns):
                continue
            for end_ns in model.find_late_panes():
                amended = model.amend_pane(end_ns, is_complete=self._is_complete)
                state.changes.amendments.append(amended.pane)
                self._note_closed(model, amended)
            for end_ns in model.advance_watermark(now_ns):
                closed = model.close_pane(end_ns, is_complete=self._is_complete)
                windows += closed.windows
                state.changes.panes.append(closed.pane)
                self._note_closed(model, closed)
            state.remove_idle_senders(model, now_ns)
            model.note_closed()
        if now_ns >= self._expires_ns:
            self._expires_ns = now_ns + EXPIRY_INTERVAL_NS
            remove_stale(state, now_ns, resumed_ns=self._resumed_ns, removed_streams=self._removed_streams)
            self._model_limit.report(len(state.models))
            self._stream_limit.report(self.stream_count)
            self._series_limit.report(len(state.series))
        return sorted(windows, key=lambda window: (window.end_ns, window.stream))

    def pop_replaced_streams(self) -> list[StreamKey]:
        """Returns the streams that got another reference since the last call, other than by learning."""
        streams, self._replaced_streams = self._replaced_streams, []
        return streams

    def pop_removed_streams(self) -> list[StreamKey]:
        """Returns the streams removed since the last call, so that other steps can drop them too."""
        streams, self._removed_streams = self._removed_streams, []
        return streams

    def provider_reports(self) -> dict[ModelKey, tuple[ProviderUse, ...]]:
        """Returns the reported execution providers of the models that sent such reports since the last save."""
        return {model: self._state.providers[model].uses for model in self._state.reported_models()}

    def pop_version_pairs(self) -> list[VersionPair]:
        """Returns new versions with enough predictions to compare with the version before, each once."""
        models, pairs = self._state.models, list[VersionPair]()
        for model in models.values():
            introduction = model.progress.introduction
            if introduction is not None and introduction.is_complete:
                model.progress.introduction = None
                pairs += pair_versions(models, model, introduction)
        return pairs

    @property
    def models(self) -> list[ModelKey]:
        """Every model version that has sent data points, sorted."""
        return sorted(self._state.models)

    @property
    def series_count(self) -> int:
        """The number of time series of all senders."""
        return len(self._state.series)

    @property
    def stream_count(self) -> int:
        """The number of streams in which drift is looked for."""
        return sum(len(model.streams) for model in self._state.models.values())

    def find_stream(self, key: StreamKey) -> StreamWindows | None:
        """Returns the rolling window and the reference of a stream; None if the stream does not exist."""
        model = self._state.models.get(key.model)
        return model.streams.get(key.stream) if model is not None else None

    def pop_touched_models(self) -> set[ModelKey]:
        """Returns the model versions that were removed, or changed for people to see, since the last call."""
        touched, self._state.touched = self._state.touched, set()
        return touched

    def summary(self, model: ModelKey) -> ModelSummary:
        """Returns a summary of one model version and its streams for people.

        Raises:
            KeyError: There is no point of it.
        """
        summary = self._state.models[model].summary(is_complete=self._is_complete)
        return replace(summary, providers=self._state.provider_uses(model))

    def reference(self, model: ModelKey) -> ModelReference:
        """Returns the reference that the streams of one model version are compared with.

        Raises:
            KeyError: There is no point of it.
        """
        return self._state.models[model].reference()

    def _add(self, point: DataPoint, now_ns: int) -> PointOutcome:
        state = self._state
        time_ns = point.time_ns
        if time_ns > now_ns + CLOCK_SLACK_NS:
            self.clamped += 1
            time_ns = now_ns
        end_ns = -(-time_ns // state.windows.pane_ns) * state.windows.pane_ns
        key = SeriesKey(point.series, point.start_ns if point.is_cumulative else DELTA)
        point_key = (point.start_ns, point.time_ns)
        series, model = state.series.get(key), state.models.get(point.model)
        refusal = self._check_point(point, series, end_ns, now_ns)
        if refusal is not None:
            return refusal
        value = PointValue.from_sketch(point.sketch)
        outcome: PointOutcome
        if series is None:
            series = self._add_series(key, point, now_ns)
            outcome = "reset" if state.add_series(series) else "accepted"
            is_counted = not value.total or self._is_complete(series.state, point.start_ns, point.time_ns)
        else:
            outcome = "out_of_order" if time_ns < series.state.newest_ns else "accepted"
            is_counted = series.can_subtract(value) if point.is_cumulative else True
        if model is not None and end_ns <= model.progress.closed_ns:
            outcome = "late"
        pending = Point(end_ns, time_ns, now_ns, value, point.exemplars, state.request)
        state.add_point(series, point_key, pending, sender=point.sender)
        state.models[point.model].add_point(series, end_ns, time_ns, now_ns, sender=series.state.sender)
        return outcome if is_counted or not point.is_cumulative else "starting_point"

    def _check_point(self, point: DataPoint, series: Series | None, end_ns: int, now_ns: int) -> PointOutcome | None:
        """Returns the outcome of a data point that adds nothing to its pane; None if it adds something."""
        if series is not None:
            repetition = series.find_repetition((point.start_ns, point.time_ns))
            if repetition is not None:
                return repetition
        elif not list_streams(point.metric, point.key, point.category):
            return "unused"
        if isinstance(point.sketch, int) is not (point.metric in COUNTERS):
            return "mismatch"
        if end_ns <= now_ns - self._state.windows.amend_for_ns:
            return "too_late"
        return self._find_refusal(point, now_ns) if series is None else None

    def _find_refusal(self, point: DataPoint, now_ns: int) -> PointOutcome | None:
        """Returns the reason why a new series cannot be added; None if it can."""
        state, model = self._state, self._state.models.get(point.model)
        ended = state.ended.get(point.sender)
        if ended is not None and not point.is_cumulative and point.time_ns <= ended.newest_ns:
            return "overlap"
        if model is None and not self._model_limit.has_room(len(state.models)):
            self._model_limit.report(len(state.models))
            return "too_many_models"
        names = list_streams(point.metric, point.key, point.category)
        present = model.streams if model is not None else {}
        added = [name for name in names if name not in present]
        settings = model.settings if model is not None else state.settings_of(point.model)
        inputs = sum(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in (*present, *added)) if added else 0
        refusal: PointOutcome | None = None
        if inputs > settings.max_features and any(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in added):
            refusal = "too_many_features"
        elif added and not self._stream_limit.has_room(self.stream_count, len(added)):
            self._stream_limit.report(self.stream_count)
            refusal = "too_many_streams"
        elif not self._series_limit.has_room(len(state.series)) and not self._free_series(now_ns):
            self._series_limit.report(len(state.series))
            refusal = "too_many_series"
        if refusal is not None:
            # Also a model without any room is shown, so that nobody takes it for a model that is watched.
            self._ensure_model(point.model, now_ns).note_overflow(now_ns)
            state.touched.add(point.model)
        return refusal

    def _free_series(self, now_ns: int) -> bool:
        """Removes series of senders silent for minutes where there is no room; returns whether there is."""
        if now_ns >= self._frees_ns:
            self._frees_ns = now_ns + FREE_INTERVAL_NS
            remove_ended_series(self._state, now_ns, after_ns=FREE_AFTER_NS, resumed_ns=self._resumed_ns)
        return self._series_limit.has_room(len(self._state.series))

    def _ensure_model(self, key: ModelKey, now_ns: int) -> ModelWindows:
        state = self._state
        if key not in state.models:
            state.models[key] = ModelWindows(
                progress=ModelProgress(
                    model=key, received_ns=now_ns, introduction=begin_introduction(state.models, key)
                ),
                settings=state.settings_of(key),
                windows=state.windows,
            )
            state.changes.models.add(key)
        return state.models[key]

    def _add_series(self, key: SeriesKey, point: DataPoint, now_ns: int) -> Series:
        state = self._state
        model = self._ensure_model(point.model, now_ns)
        for name in list_streams(point.metric, point.key, point.category):
            if name not in model.streams:
                state.changes.streams.add(model.ensure_stream(name).key)
        state.changes.series.add((point.model, point.sender))
        return Series(
            SeriesState(
                key=key,
                sender=point.sender,
                model=point.model,
                metric=point.metric,
                name=point.key,
                category=point.category,
                updated_ns=now_ns,
            )
        )

    def _is_complete(self, series: SeriesState, start_ns: int, time_ns: int) -> bool:
        """Returns whether a series' first total was counted since this process began, by no removed series.

        One that began longer ago than a series is remembered may be that of a series that was removed.
        """
        ended = self._state.ended.get(series.sender)
        is_since_start = start_ns >= self._state.started_ns - CLOCK_SLACK_NS
        is_recent = time_ns - start_ns <= self._state.windows.stale_after_ns
        is_new = ended is None or start_ns > ended.newest_ns
        return is_since_start and is_recent and is_new and 0 < start_ns < time_ns

    def _note_closed(self, model: ModelWindows, closed: ClosedPane) -> None:
        """Records what closing or amending a pane changed."""
        state, now_ns = self._state, self._clock_ns()
        state.changes.streams.update(closed.changed)
        state.changes.models.add(model.key)
        state.changes.presences.add(model.key)
        state.touched.add(model.key)
        for series, key, point in closed.consumed:
            series.state.updated_ns = now_ns
            self.resets += series.resets
            series.resets = 0
            state.note_consumed(series, key, point)
