"""Collects points into panes of event time, and turns each closed pane into one window a stream.

A pane (start, end] holds the points whose time is in it, since a point counts what came before its time. It closes when
the model's watermark, the largest event time of its points, is the allowed lateness past its end, or when no point was
received for that long. A point for a closed pane is late: counted, and no evidence.

Runs on: the state thread.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from otel_mlmon import semconv
from otel_mlmon.errors import ProfileError
from otel_mlmon.processor.receive.data_point import DataPoint, ModelLoaded, ProviderFallback
from otel_mlmon.processor.state.repository import Repository
from otel_mlmon.processor.window.model_windows import ModelProgress, ModelSummary, ModelWindows
from otel_mlmon.processor.window.providers import ModelProviders
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.reference_export import ModelReference, RelearnRequest, model_reference
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
from otel_mlmon.processor.window.state import (
    MAX_EMBEDDED_REFERENCES,
    EmbeddedReference,
    WindowState,
    load_state,
    save_state,
)
from otel_mlmon.processor.window.window import Reference, StreamKey, Window, WindowSettings
from otel_mlmon.reference.embedding import decode_profile
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import Counts, ModelKey

_LOG: Final = logging.getLogger("otel_mlmon.processor")

PointOutcome: TypeAlias = Literal[
    "accepted", "out_of_order", "reset", "duplicate", "late", "overflow", "mismatch", "unused"
]
"""Outcome of adding a point. `out_of_order`: accepted, though a later one of its series came first. `reset`: accepted,
and its series began anew. `overflow`: dropped, there are too many series or streams. `mismatch`: dropped, a histogram
where a counter is expected or the reverse. `unused`: of a metric that no stream is made of."""

REJECTED_OUTCOMES: Final[frozenset[PointOutcome]] = frozenset({"late", "overflow", "mismatch"})
"""Outcomes of points that were not counted, which their sender learns."""

ReferenceOutcome: TypeAlias = Literal["accepted", "unchanged", "older", "none", "refused", "overflow"]
"""Outcome of adding a loaded model's reference. `older`: another one was made later. `none`: the model
carries none. `refused`: it cannot be read, or is of another version. `overflow`: dropped, too many models without
points carry one."""

CLOCK_SLACK_NS: Final = 5_000_000_000
"""The tolerated difference, either way, between a sender's clock and the processor's."""
EXPIRY_INTERVAL_NS: Final = 60_000_000_000
"""Interval at which stale series are searched for, at most."""


class WindowAggregator:
    """Makes the windows of all models from their points.

    Args:
        settings_for: Returns the settings of a model; called once a model.
        windows: Lengths of time.
        max_streams: Drift streams over all models; new ones beyond are dropped.
        max_series: Series over all writers, likewise.
        clock_ns: Unix nanoseconds.
    """

    def __init__(
        self,
        *,
        settings_for: Callable[[ModelKey], ModelWindowSettings] = lambda _: ModelWindowSettings(),
        windows: WindowSettings | None = None,
        max_streams: int = 10_000,
        max_series: int = 100_000,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._state = WindowState(settings_for=settings_for, windows=windows or WindowSettings(), started_ns=clock_ns())
        self._max_streams = max_streams
        self._max_series = max_series
        self._clock_ns = clock_ns
        self._removed_streams: list[StreamKey] = []
        self._replaced_streams: list[StreamKey] = []
        self._expires_ns = 0
        self.counts: Counter[PointOutcome] = Counter()
        """Points by outcome, since this process started."""
        self.clamped = 0
        """Points from the future, counted as of now."""
        self.resets = 0
        """Totals that fell or changed their buckets."""

    def load(self, repository: Repository) -> None:
        """Continues from the saved state, if there is one, with the present settings.

        Raises:
            StoreError: The repository cannot be read, or a record in it is damaged.
        """
        load_state(self._state, repository)
        for model in self._state.models.values():
            model.resumed_ns = self._clock_ns()

    def save(self, repository: Repository) -> None:
        """Writes what changed since the last save; durable after `repository.commit()`.

        Raises:
            StoreError: The repository refused it. What changed is written again by the next save.
        """
        save_state(self._state, repository, now_ns=self._clock_ns())

    def add(self, point: DataPoint) -> PointOutcome:
        """Adds a point to its pane, or drops it; returns the outcome."""
        outcome = self._add(point, self._clock_ns())
        self.counts[outcome] += 1
        return outcome

    def add_reference(self, loaded: ModelLoaded) -> ReferenceOutcome:
        """Uses the reference that a model carries, or refuses it; returns the outcome.

        Of two references of one model version the one that was made later counts, in whatever order and however often
        they come. Evidence against the earlier reference of a stream is no evidence against the later one.
        """
        if not loaded.reference:
            return "none"
        present = self._state.embedded.get(loaded.model)
        if present is not None and present[0].text == loaded.reference:
            return "unchanged"
        profile = _decode_reference(loaded)
        if profile is None:
            return "refused"
        reference = EmbeddedReference(loaded.model, loaded.reference, self._clock_ns())
        if present is not None and (profile.created, reference.text) < (present[1].created, present[0].text):
            return "older"
        if loaded.model not in self._state.models and len(self._state.embedded) >= MAX_EMBEDDED_REFERENCES:
            return "overflow"
        self._replaced_streams += self._state.add_embedded(reference, profile)
        _LOG.info(
            "Model %s %s carries a reference, made %s: its streams are judged by it.",
            loaded.model.name,
            loaded.model.version,
            profile.created,
        )
        return "accepted"

    def relearn(self, request: RelearnRequest) -> list[StreamKey]:
        """Starts to learn references again, and returns the streams that do: evidence against the old ones is void."""
        model = self._state.models.get(request.model)
        streams = model.relearn(request.streams) if model is not None else []
        self._state.changes.streams.update(streams)
        return streams

    def add_provider(self, event: ModelLoaded | ProviderFallback) -> None:
        """Notes the execution provider that a process runs a model on; a report that comes twice changes nothing."""
        providers, model = self._state.providers, event.model
        is_full = model not in self._state.models and len(providers) >= MAX_EMBEDDED_REFERENCES
        if not event.provider or (is_full and model not in providers):
            return
        now_ns = self._clock_ns()
        requested = event.requested if isinstance(event, ProviderFallback) else ""
        time_ns = min(event.time_ns or now_ns, now_ns)
        present = providers.get(model, ModelProviders(model))
        providers[model] = present.add(requested=requested, provider=event.provider, time_ns=time_ns)
        if providers[model] != present:
            self._state.changes.providers.add(model)

    def close_panes(self, now_ns: int) -> list[Window]:
        """Closes the panes that the watermark has passed, and returns their windows, in the order of event time.

        Args:
            now_ns: The time by our clock, Unix nanoseconds.
        """
        state, windows = self._state, list[Window]()
        for model in state.models.values():
            for end_ns in model.advance_watermark(now_ns):
                closed = model.close_pane(end_ns, is_complete=self._is_complete)
                windows += closed.windows
                state.changes.panes.append(closed.pane)
                state.changes.streams.update(closed.changed)
                state.changes.models.add(model.key)
                for series, key in closed.consumed:
                    self._note_consumed(series)
                    state.note_consumed(series, key)
        if now_ns >= self._expires_ns:
            self._expires_ns = now_ns + EXPIRY_INTERVAL_NS
            self._expire(now_ns)
        return sorted(windows, key=lambda window: (window.end_ns, window.stream))

    def pop_replaced_streams(self) -> list[StreamKey]:
        """Returns the streams that got another reference since the last call, other than by learning one."""
        streams, self._replaced_streams = self._replaced_streams, []
        return streams

    def pop_removed_streams(self) -> list[StreamKey]:
        """Returns the streams that were removed since the last call, so that other steps can drop them too."""
        streams, self._removed_streams = self._removed_streams, []
        return streams

    @property
    def models(self) -> list[ModelKey]:
        """Every model version with points, sorted."""
        return sorted(self._state.models)

    @property
    def series_count(self) -> int:
        """How many series there are."""
        return len(self._state.series)

    @property
    def stream_count(self) -> int:
        """How many drift streams are watched."""
        return sum(len(model.streams) for model in self._state.models.values())

    def rolling_window(self, stream: StreamKey) -> tuple[Reference, Counts] | None:
        """Returns the reference and the rolling counts, shape (K,), of a stream; None if either has no values yet."""
        model = self._state.models.get(stream.model)
        windows = model.streams.get(stream.stream) if model is not None else None
        if windows is None or windows.reference is None or not windows.rolling.total:
            return None
        return windows.reference, windows.rolling.counts

    def summary(self, model: ModelKey) -> ModelSummary:
        """Summarises one model version for people.

        Raises:
            KeyError: There is no point of it.
        """
        return replace(self._state.models[model].summary(), providers=self._state.provider_uses(model))

    def reference(self, model: ModelKey) -> ModelReference:
        """Returns the reference that one model version is judged by.

        Raises:
            KeyError: There is no point of it.
        """
        windows = self._state.models[model]
        return model_reference(model, windows.settings, windows.streams)

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
        if series is not None and series.has_point(point_key):
            return "duplicate"
        if isinstance(point.sketch, int) is not (point.metric in COUNTERS):
            return "mismatch" if list_streams(point.metric, point.key, point.category) else "unused"
        if model is not None and end_ns <= model.progress.closed_ns:
            return "late" if list_streams(point.metric, point.key, point.category) else "unused"
        outcome: PointOutcome = "accepted"
        if series is None:
            refusal = self._refusal(point, model)
            if refusal is not None:
                return refusal
            series = self._add_series(key, point, now_ns)
            outcome = "reset" if state.add_series(series) else "accepted"
        elif point.time_ns < series.state.newest_ns:
            outcome = "out_of_order"
        state.add_point(series, point_key, Point(end_ns, PointValue.from_sketch(point.sketch), point.exemplars))
        state.models[point.model].add_point(series, end_ns, time_ns, now_ns)
        return outcome

    def _refusal(self, point: DataPoint, model: ModelWindows | None) -> PointOutcome | None:
        """Returns the reason why a new series cannot be added; None if it can."""
        names = list_streams(point.metric, point.key, point.category)
        if not names:
            return "unused"
        present = model.streams if model is not None else {}
        added = [name for name in names if name not in present]
        if len(self._state.series) >= self._max_series:
            return "overflow"
        if added and self.stream_count + len(added) > self._max_streams:
            return "overflow"
        inputs = sum(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in (*present, *added))
        settings = model.settings if model is not None else self._state.settings_of(point.model)
        is_input = any(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in added)
        return "overflow" if is_input and inputs > settings.max_features else None

    def _add_series(self, key: SeriesKey, point: DataPoint, now_ns: int) -> Series:
        state = self._state
        if point.model not in state.models:
            state.models[point.model] = ModelWindows(
                progress=ModelProgress(model=point.model, received_ns=now_ns),
                settings=state.settings_of(point.model),
                windows=state.windows,
            )
        model = state.models[point.model]
        for name in list_streams(point.metric, point.key, point.category):
            if name not in model.streams:
                state.changes.streams.add(model.ensure_stream(name).key)
        state.changes.series.add(key)
        return Series(
            SeriesState(
                key=key,
                model=point.model,
                metric=point.metric,
                name=point.key,
                category=point.category,
                updated_ns=now_ns,
            )
        )

    def _is_complete(self, start_ns: int, time_ns: int) -> bool:
        """Returns whether a first total was counted since this process started.

        One that began longer ago than a series is remembered may be that of a series that was removed.
        """
        is_since_start = start_ns >= self._state.started_ns - CLOCK_SLACK_NS
        is_recent = time_ns - start_ns <= self._state.windows.stale_after_ns
        return is_since_start and is_recent and 0 < start_ns < time_ns

    def _note_consumed(self, key: SeriesKey) -> None:
        series = self._state.series[key]
        series.state.updated_ns = self._clock_ns()
        self.resets += series.resets
        series.resets = 0

    def _expire(self, now_ns: int) -> None:
        """Removes models and series without points for too long."""
        state = self._state
        stale_ns, retention_ns = now_ns - state.windows.stale_after_ns, now_ns - state.windows.retention_ns
        for model in [key for key, model in state.models.items() if model.progress.received_ns < retention_ns]:
            self._removed_streams += state.remove_model(model)
        for model in [key for key, (reference, _) in state.embedded.items() if reference.received_ns < retention_ns]:
            if model not in state.models:
                state.remove_embedded(model)
        for model in [key for key, uses in state.providers.items() if uses.last_ns < retention_ns]:
            if model not in state.models:
                state.remove_providers(model)
        for key, series in list(state.series.items()):
            is_stale = series.state.updated_ns < stale_ns and not series.pending
            if is_stale or series.state.model not in state.models:
                state.remove_series(key)
        state.prune_panes()


def _decode_reference(loaded: ModelLoaded) -> Profile | None:
    """Decodes the profile that a model carries; None, and a warning, if it is invalid or of another version."""
    model = loaded.model
    try:
        profile = decode_profile(loaded.reference)
    except ProfileError as error:
        _LOG.warning("The reference that model %s %s carries is refused: %s", model.name, model.version, error)
        return None
    if profile.version and model.version and profile.version != model.version:
        _LOG.warning(
            "Model %s %s carries the reference of version %s: it is refused.",
            model.name,
            model.version,
            profile.version,
        )
        return None
    return profile
