"""Collects data points into panes of event time, and turns each closed pane into one window for each stream.

A pane (start, end] holds the points whose time is in it, since a point counts what came before its time. It closes when
the model's watermark (`progress.py`) is the allowed lateness past its end, or no point was received for that long. A
point for a closed pane is late: it is added to the pane's counts and to what is reported, and is no evidence. A point
from the future belongs to the pane of its arrival. Where too many points wait, the oldest panes close without
that lateness until there is room.

Runs on: the state thread.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import replace
from itertools import chain
from typing import Final, NamedTuple

from otel_mlmon.guard import guard
from otel_mlmon.processor.receive.data_point import DataPoint, ModelLoaded, PointGroup, ProviderFallback, group_points
from otel_mlmon.processor.state.repository import Repository
from otel_mlmon.processor.window.embedded_reference import decode_embedded_reference
from otel_mlmon.processor.window.expiry import remove_stale_streams
from otel_mlmon.processor.window.intake import PointIntake
from otel_mlmon.processor.window.model_windows import NEVER_NS, ClosedPane, ModelWindows
from otel_mlmon.processor.window.outcome import PointOutcome, ReferenceOutcome, ResourceLimit
from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.processor.window.records import load_state, save_state
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.reference_export import ModelReference, RelearnRequest
from otel_mlmon.processor.window.state import MAX_EMBEDDED_REFERENCES, EmbeddedReference, WindowState
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.processor.window.summary import ModelSummary
from otel_mlmon.processor.window.versions import pair_versions
from otel_mlmon.processor.window.window import StreamKey, StreamWindow, VersionPair, WindowSettings
from otel_mlmon.types import ModelKey

_LOG: Final = logging.getLogger("otel_mlmon.processor")

EXPIRY_INTERVAL_NS: Final = 60_000_000_000
"""Interval at which what is stale is searched for, at most."""

ROOM_SHARE: Final = 0.9
"""Share of the limit on waiting points at which panes wait for late points again, after the limit was reached."""


class _DuePane(NamedTuple):
    """A pane that may be closed, in the order in which those of all models are: none waits for another's backlog."""

    is_early: bool
    """Whether only a lack of room closes it: then the oldest one goes first."""
    position: int
    """How many panes of its model go before it, where it is not early."""
    is_amended: bool
    """Whether it was closed before, and late points came for it."""
    end_ns: int
    model: ModelKey


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
        self._intake = PointIntake(
            self._state,
            models=ResourceLimit("max_models", max_models, "model versions"),
            streams=ResourceLimit("max_streams", max_streams, "streams"),
            series=ResourceLimit("max_series", max_series, "series"),
        )
        self._clock_ns = clock_ns
        self._removed_streams: list[StreamKey] = []
        self._replaced_streams: list[StreamKey] = []
        self._expires_ns = 0
        self._is_crowded = False
        """Whether panes close without their lateness, as too many points wait."""
        self.unclosed_models: Set[ModelKey] = frozenset()
        """The models of which the last call of `close_panes` left panes for the next one."""
        self.unjudged_models: Set[ModelKey] = frozenset()
        """The models among `unclosed_models` of which more is left than late points for closed panes."""
        self.counts: Counter[PointOutcome] = Counter()
        """Points by outcome, since this process started."""
        self.resets = 0
        """Totals that fell or changed their buckets."""

    def load(self, repository: Repository) -> None:
        """Restores the state of all windows from the state store, if there is one, under the present settings.

        Raises:
            StoreError: The repository cannot be read.
        """
        self._intake.resumed_ns = resumed_ns = self._clock_ns()
        load_state(self._state, repository, now_ns=resumed_ns)
        for model in self._state.models.values():
            model.resumed_ns = resumed_ns

    def save(self, repository: Repository) -> None:
        """Writes the changes of all windows since the last save; durable after `repository.commit()`.

        Raises:
            StoreError: The repository refused it. After a rollback the next save writes what changed again.
        """
        save_state(self._state, repository, now_ns=self._clock_ns())

    def add_points(self, groups: Iterable[PointGroup]) -> Counter[PointOutcome]:
        """Adds the data points of one request to their panes; returns the number of points by outcome.

        Raises:
            OverloadedError: Too many points wait until their pane closes; none of these was added.
        """
        self._state.request += 1
        outcomes = self._intake.add_points(groups, self._clock_ns())
        self.counts.update(outcomes)
        return outcomes

    def add(self, point: DataPoint) -> PointOutcome:
        """Adds a request of one data point to its pane, or drops it; returns the outcome. Raises as `add_points`."""
        (outcome,) = self.add_points(group_points([point]))
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
        profile = decode_embedded_reference(loaded)
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
        """Starts to learn references of a model again; returns the streams, whose evidence so far is void."""
        model = self._state.models.get(request.model)
        streams = model.relearn(request.streams) if model is not None else []
        self._state.changes.streams.update(streams)
        self._state.touched.add(request.model)
        return streams

    def add_provider(self, event: ModelLoaded | ProviderFallback) -> None:
        """Records the execution provider that a process runs a model on; a repeated report changes nothing."""
        self._state.add_provider(event, self._clock_ns())

    def close_panes(self, now_ns: int, *, is_late: Callable[[], bool] = lambda: False) -> list[StreamWindow]:
        """Closes the panes that the watermark has passed, and returns their windows, in the order of event time.

        Args:
            now_ns: The time by our clock, Unix nanoseconds.
            is_late: Returns whether to stop after a pane; the next call goes on with what is left: `unclosed_models`.
        """
        state, panes = self._state, list[list[StreamWindow]]()
        is_early = self._closes_early()
        models = {key: model for key, model in state.models.items() if is_early or model.is_due(now_ns)}
        lateness_ns = state.windows.lateness_ns
        until_ns = {key: model.compute_closing_time(now_ns, lateness_ns=lateness_ns) for key, model in models.items()}
        early_ns = until_ns
        if is_early:
            early_ns = {key: model.compute_closing_time(now_ns, lateness_ns=0) for key, model in models.items()}
        is_over = False
        for pane in heapq.merge(*[_list_due_panes(models[key], until_ns[key], early_ns[key]) for key in models]):
            if is_over or (pane.is_early and not self._closes_early()):
                break
            self._close_pane(models[pane.model], pane.end_ns, panes)
            is_over = is_late()
        ends_ns = early_ns if is_early and self._closes_early() else until_ns
        unclosed = {key for key, model in models.items() if min(model.open_panes, default=NEVER_NS) <= ends_ns[key]}
        for key in models.keys() - unclosed:
            model = models[key]
            model.progress.closed_ns = max(model.progress.closed_ns, until_ns[key])
            state.remove_idle_senders(model, now_ns)
            model.mark_pane_closed()
        self.unclosed_models = unclosed
        self.unjudged_models = {key for key in unclosed if _is_any_unjudged(models[key], ends_ns[key])}
        # A model is removed after all its panes.
        if now_ns >= self._expires_ns and not unclosed:
            self._expires_ns = now_ns + EXPIRY_INTERVAL_NS
            remove_stale_streams(
                state, now_ns, resumed_ns=self._intake.resumed_ns, removed_streams=self._removed_streams
            )
            self._intake.report_limits()
        panes.sort(key=lambda windows: (windows[0].end_ns, windows[0].stream.model))
        return list(chain.from_iterable(panes))

    def _closes_early(self) -> bool:
        """Decides whether panes close without their lateness: from the limit on, until there is some room again."""
        share = ROOM_SHARE if self._is_crowded else 1.0
        self._is_crowded = self._state.pending_points >= share * self._state.windows.max_pending_points
        return self._is_crowded

    def _close_pane(self, model: ModelWindows, end_ns: int, panes: list[list[StreamWindow]]) -> None:
        """Closes a pane of a model, or adds late points to a closed one; what fails costs no other pane its points."""
        state, is_amended = self._state, end_ns <= model.progress.closed_ns
        take = model.amend_pane if is_amended else model.close_pane
        is_done = False
        with guard("window"):
            closed = take(end_ns, is_complete=self._intake.is_complete)
            if closed.windows:
                panes.append(closed.windows)
            (state.changes.amendments if is_amended else state.changes.panes).append(closed.pane)
            self._note_closed_pane(model, closed)
            is_done = True
        if not is_done:
            state.drop_lost_points(model.key, end_ns)
        model.progress.closed_ns = max(model.progress.closed_ns, end_ns)

    def pop_replaced_streams(self) -> list[StreamKey]:
        """Returns the streams that got another reference since the last call, other than by learning."""
        streams, self._replaced_streams = self._replaced_streams, []
        return streams

    def pop_removed_streams(self) -> list[StreamKey]:
        """Returns the streams removed since the last call, so that other steps can drop them too."""
        streams, self._removed_streams = self._removed_streams, []
        return streams

    def provider_reports(self) -> dict[ModelKey, tuple[ExecutionProviderUse, ...]]:
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
        """The model versions that have sent data points, sorted."""
        return sorted(self._state.models)

    @property
    def clamped_points(self) -> int:
        """The number of data points that came from the future, and were counted as of now."""
        return self._intake.clamped

    @property
    def series_count(self) -> int:
        """The number of time series of all senders."""
        return len(self._state.series)

    @property
    def pending_points(self) -> int:
        """The number of data points that wait until their pane closes."""
        return self._state.pending_points

    @property
    def stream_count(self) -> int:
        """The number of drift streams that are watched."""
        return self._state.stream_count

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
        summary = self._state.models[model].summary(is_complete=self._intake.is_complete)
        return replace(summary, providers=self._state.provider_uses(model))

    def reference(self, model: ModelKey) -> ModelReference:
        """Returns the reference that the streams of one model version are compared with.

        Raises:
            KeyError: There is no point of it.
        """
        return self._state.models[model].reference()

    def _note_closed_pane(self, model: ModelWindows, closed: ClosedPane) -> None:
        """Records what the closing or amending of a pane changed."""
        state = self._state
        state.changes.streams.update(closed.changed)
        state.changes.models.add(model.key)
        state.changes.presences.add(model.key)
        state.touched.add(model.key)
        self.resets += state.mark_consumed(model.key, closed.pane.end_ns, closed.groups, self._clock_ns())


def _list_due_panes(model: ModelWindows, until_ns: int, early_ns: int) -> Iterator[_DuePane]:
    """Yields the open panes of a model that end by `until_ns`, or by `early_ns` where there is no room, in order."""
    for position, end_ns in enumerate(sorted(end_ns for end_ns in model.open_panes if end_ns <= early_ns)):
        is_early = end_ns > until_ns
        yield _DuePane(is_early, 0 if is_early else position, end_ns <= model.progress.closed_ns, end_ns, model.key)


def _is_any_unjudged(model: ModelWindows, until_ns: int) -> bool:
    """Returns whether an open pane of a model that ends by `until_ns` was not closed before."""
    return any(model.progress.closed_ns < end_ns <= until_ns for end_ns in model.open_panes)
