"""Panes: takes points, and turns each closed pane of event time into one window a stream.

A pane (start, end] holds the points taken in it, since a point counts what came before its time. It closes
when the model's watermark, the largest event time seen, is the lateness bound past its end, or when the
model has been silent for that long. What comes for a closed pane is late: counted, and no evidence.

Runs on: one thread, the owner of the state.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from otel_mlmon import semconv
from otel_mlmon.errors import ProfileError
from otel_mlmon.processor.receive.data_point import DataPoint, ModelLoaded
from otel_mlmon.processor.state.saving import load, save
from otel_mlmon.processor.state.sqlite import Store
from otel_mlmon.processor.window.model import Model, ModelSummary
from otel_mlmon.processor.window.reference_export import ModelReference, model_reference
from otel_mlmon.processor.window.series import DELTA, Point, PointKey, Series, SeriesKey
from otel_mlmon.processor.window.settings import ModelSettings, WindowSettings
from otel_mlmon.processor.window.state import MAX_ANNOUNCED, Announced, State
from otel_mlmon.processor.window.streams import COUNTERS, streams_of
from otel_mlmon.processor.window.window import StreamKey, Window
from otel_mlmon.reference.embedding import decode_profile
from otel_mlmon.types import ModelKey

_LOG: Final = logging.getLogger("otel_mlmon.processor")

Outcome: TypeAlias = Literal["accepted", "out_of_order", "reset", "duplicate", "late", "overflow", "mismatch", "unused"]
"""What became of a point. `out_of_order`: taken, though a later one of its series was there before.
`reset`: taken, and its series began anew. `overflow`: dropped, there are too many series or streams.
`mismatch`: dropped, a histogram where
a counter is expected or the reverse. `unused`: of a metric that no stream is made of."""

Announcement: TypeAlias = Literal["taken", "unchanged", "older", "none", "refused", "overflow"]
"""What became of the reference of a model that was loaded. `older`: another one was made later. `none`: it carries
none. `refused`: it is none, or of another version. `overflow`: dropped, too many models announced one and sent no
point."""

TAKEN: Final[frozenset[Outcome]] = frozenset({"accepted", "out_of_order", "reset"})

CLOCK_SLACK_NS: Final = 5_000_000_000
"""A writer's clock may be this far ahead of ours, or behind it, and count as right."""
EXPIRY_NS: Final = 60_000_000_000
"""Stale series are looked for at most once in this time."""


class WindowAggregator:
    """Open panes, series, references and rolling windows of all models.

    Args:
        settings_for: What a model is told; asked once a model.
        windows: Lengths of time.
        max_streams: Drift streams over all models; new ones beyond are dropped, old ones go on.
        max_series: Series over all writers, likewise.
        clock_ns: Unix nanoseconds.
    """

    def __init__(
        self,
        *,
        settings_for: Callable[[ModelKey], ModelSettings] = lambda _: ModelSettings(),
        windows: WindowSettings | None = None,
        max_streams: int = 10_000,
        max_series: int = 100_000,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._state = State(settings_for=settings_for, windows=windows or WindowSettings(), started_ns=clock_ns())
        self._max_streams = max_streams
        self._max_series = max_series
        self._clock_ns = clock_ns
        self._forgotten: list[StreamKey] = []
        self._replaced: list[StreamKey] = []
        self._expires_ns = 0
        self.counts: Counter[Outcome] = Counter()
        """Points by what became of them, since this process started."""
        self.clamped = 0
        """Points from the future, taken as of now."""
        self.resets = 0
        """Running totals that fell or changed their buckets."""

    @classmethod
    def load(
        cls,
        store: Store,
        *,
        settings_for: Callable[[ModelKey], ModelSettings] = lambda _: ModelSettings(),
        windows: WindowSettings | None = None,
        max_streams: int = 10_000,
        max_series: int = 100_000,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> WindowAggregator:
        """As `save` left it; empty if nothing was saved. Settings that changed since are followed.

        Raises:
            StoreError: The store cannot be read, or what it holds is damaged.
        """
        panes = cls(
            settings_for=settings_for,
            windows=windows,
            max_streams=max_streams,
            max_series=max_series,
            clock_ns=clock_ns,
        )
        load(panes._state, store)
        return panes

    def save(self, store: Store) -> None:
        """Write what changed since the last save; durable after `store.commit()`.

        Raises:
            StoreError: The disk refused it. What changed is written again by the next save.
        """
        save(self._state, store, now_ns=self._clock_ns())

    def add(self, point: DataPoint) -> Outcome:
        """Take a point, or say why not."""
        outcome = self._add(point, self._clock_ns())
        self.counts[outcome] += 1
        return outcome

    def announce(self, loaded: ModelLoaded) -> Announcement:
        """Take the reference that a model carries, or say why not.

        Of two references of one model version the one that was made later counts, in whatever order and however often
        they come. Evidence against what the streams went by before is no evidence against it.
        """
        if not loaded.reference:
            return "none"
        known = self._state.announced.get(loaded.model)
        if known is not None and known.text == loaded.reference:
            return "unchanged"
        try:
            announced = Announced(loaded.reference, decode_profile(loaded.reference), self._clock_ns())
        except ProfileError as error:
            _LOG.warning(
                "The reference that model %s %s carries is refused: %s", loaded.model.name, loaded.model.version, error
            )
            return "refused"
        version = announced.profile.version
        if version and loaded.model.version and version != loaded.model.version:
            _LOG.warning(
                "Model %s %s carries the reference of version %s: it is refused.",
                loaded.model.name,
                loaded.model.version,
                version,
            )
            return "refused"
        if known is not None and announced.rank < known.rank:
            return "older"
        if loaded.model not in self._state.models and len(self._state.announced) >= MAX_ANNOUNCED:
            return "overflow"
        streams = self._state.announce(loaded.model, announced)
        self._replaced += [stream.key for stream in streams]
        _LOG.info(
            "Model %s %s carries a reference, made %s.",
            loaded.model.name,
            loaded.model.version,
            announced.profile.created,
        )
        return "taken"

    def replaced(self) -> list[StreamKey]:
        """Streams that got another reference since this was last asked, other than by learning one."""
        replaced, self._replaced = self._replaced, []
        return replaced

    def close(self, now_ns: int) -> list[Window]:
        """Windows of every pane that is due, in event order; a stream is never ahead of another by a pane.

        Args:
            now_ns: The time by our clock, Unix nanoseconds.
        """
        state, windows = self._state, list[Window]()
        for model in state.models.values():
            due = model.due(now_ns)
            if due:
                state.changes.models.add(model.key)
            for end_ns in due:
                of_pane, closed = model.close_pane(
                    end_ns, keeps_first=self._keeps_first, taken=self._taken, changed=state.stream_changed
                )
                windows += of_pane
                state.changes.panes.append(closed)
        if now_ns >= self._expires_ns:
            self._expires_ns = now_ns + EXPIRY_NS
            self._expire(now_ns)
        return sorted(windows, key=lambda window: (window.end_ns, window.stream))

    @property
    def models(self) -> list[ModelKey]:
        """Every model version that a point was taken of, sorted."""
        return sorted(self._state.models)

    @property
    def series_count(self) -> int:
        """Series that are followed."""
        return len(self._state.series)

    @property
    def stream_count(self) -> int:
        """Drift streams that are watched."""
        return sum(len(model.streams) for model in self._state.models.values())

    def summary(self, model: ModelKey) -> ModelSummary:
        """One model version as it stands.

        Raises:
            KeyError: No point of it was ever taken.
        """
        return self._state.models[model].summary()

    def reference(self, model: ModelKey) -> ModelReference:
        """What one model version is judged by.

        Raises:
            KeyError: No point of it was ever taken.
        """
        found = self._state.models[model]
        return model_reference(model, found.settings, found.streams)

    def forgotten(self) -> list[StreamKey]:
        """Streams that were forgotten since this was last asked, so that others may forget them too."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def _add(self, point: DataPoint, now_ns: int) -> Outcome:
        state = self._state
        time_ns = point.time_ns
        if time_ns > now_ns + CLOCK_SLACK_NS:
            self.clamped += 1
            time_ns = now_ns
        end_ns = -(-time_ns // state.windows.pane_ns) * state.windows.pane_ns
        key = SeriesKey(point.series, point.start_ns if point.is_cumulative else DELTA)
        point_key = (point.start_ns, point.time_ns)
        series, model = state.series.get(key), state.models.get(point.model)
        if series is not None and (point_key in series.waiting or point_key in series.taken):
            return "duplicate"
        if isinstance(point.sketch, int) is not (point.metric in COUNTERS):
            return "mismatch" if streams_of(point.metric, point.key) else "unused"
        if model is not None and end_ns <= model.closed_ns:
            return "late" if series is not None or streams_of(point.metric, point.key) else "unused"
        outcome: Outcome = "accepted"
        if series is None:
            refusal = self._refusal(point, model)
            if refusal is not None:
                return refusal
            series = self._begin(key, point, now_ns)
            outcome = "reset" if state.add_series(series) else "accepted"
        elif point.time_ns < series.newest_ns:
            outcome = "out_of_order"
        series.newest_ns = max(series.newest_ns, point.time_ns)
        series.waiting[point_key] = Point(end_ns, point.sketch, point.exemplars)
        state.changes.points.add((key, point_key))
        state.changes.models.add(point.model)
        state.models[point.model].arrived(series, end_ns, time_ns, now_ns)
        return outcome

    def _refusal(self, point: DataPoint, model: Model | None) -> Outcome | None:
        """Why a new series cannot be taken; None if it can."""
        names = streams_of(point.metric, point.key)
        if not names:
            return "unused"
        known = model.streams if model is not None else {}
        added = [name for name in names if name not in known]
        if len(self._state.series) >= self._max_series:
            return "overflow"
        if added and self.stream_count + len(added) > self._max_streams:
            return "overflow"
        inputs = sum(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in (*known, *added))
        settings = model.settings if model is not None else self._state.settings_of(point.model)
        is_input = any(name.startswith(semconv.STREAM_INPUT_PREFIX) for name in added)
        return "overflow" if is_input and inputs > settings.max_features else None

    def _begin(self, key: SeriesKey, point: DataPoint, now_ns: int) -> Series:
        state = self._state
        model = state.models.get(point.model)
        if model is None:
            model = state.models[point.model] = Model(
                key=point.model,
                settings=state.settings_of(point.model),
                windows=state.windows,
                arrived_ns=now_ns,
            )
        for name in streams_of(point.metric, point.key):
            if name not in model.streams:
                state.stream_changed(model.watch(name))
        state.changes.series.add(key)
        return Series(
            key=key,
            model=point.model,
            metric=point.metric,
            name=point.key,
            category=point.category,
            seen_ns=now_ns,
        )

    def _keeps_first(self, start_ns: int, time_ns: int) -> bool:
        """Whether a first running total was all counted under our eyes.

        One that began longer ago than a series is remembered may be that of a series that was forgotten.
        """
        is_ours = start_ns >= self._state.started_ns - CLOCK_SLACK_NS
        is_recent = time_ns - start_ns <= self._state.windows.stale_after_ns
        return is_ours and is_recent and 0 < start_ns < time_ns

    def _taken(self, series: Series, key: PointKey, point: Point) -> None:
        series.seen_ns = self._clock_ns()
        self.resets += series.resets
        series.resets = 0
        self._state.point_taken(series, key, point)

    def _expire(self, now_ns: int) -> None:
        state = self._state
        stale_ns, retention_ns = now_ns - state.windows.stale_after_ns, now_ns - state.windows.retention_ns
        for name in [name for name, one in state.models.items() if one.arrived_ns < retention_ns]:
            self._forgotten += state.forget_model(name)
        for name in [name for name, one in state.announced.items() if one.arrived_ns < retention_ns]:
            if name not in state.models:
                state.forget_announced(name)
        for key, one in list(state.series.items()):
            if one.model not in state.models or (one.seen_ns < stale_ns and not one.waiting):
                state.forget_series(key)
        state.prune_panes()
