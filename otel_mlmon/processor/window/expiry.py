"""Removes ended models, replaced versions, streams without values, and the series of silent senders.

Time without a processor is no silence: after a start everything counts as just received.
"""

from __future__ import annotations

from typing import Final

from otel_mlmon.processor.window.series import TimeSeries
from otel_mlmon.processor.window.state import WindowState
from otel_mlmon.processor.window.window import StreamKey

ENDED_AFTER_NS: Final = 1_800_000_000_000
"""Silence of a sender after which its series are removed, at most; a sender of totals repeats all of them each time."""
MIN_SILENT_PANES: Final = 60
"""Panes of its model that a stale stream has missed: one that is sent weekly is not stale when its model comes back."""


def remove_stale_streams(state: WindowState, now_ns: int, *, resumed_ns: int, removed_streams: list[StreamKey]) -> None:
    """Removes models, versions, streams and series that have had no data points for too long.

    Args:
        state: What it is removed from.
        now_ns: The time by our clock, Unix nanoseconds.
        resumed_ns: When this process loaded the state.
        removed_streams: Takes the streams that were removed.
    """
    windows = state.windows
    retention_ns = now_ns - windows.retention_ns
    removed_streams += _remove_ended_models(state, now_ns, resumed_ns)
    removed_streams += _remove_silent_streams(state)
    for model in [key for key, (reference, _) in state.embedded.items() if reference.received_ns < retention_ns]:
        if model not in state.models:
            state.remove_embedded(model)
    for model in [key for key, uses in state.providers.items() if uses.last_ns < retention_ns]:
        if model not in state.models:
            state.remove_providers(model)
    stale_ns = now_ns - windows.stale_after_ns
    for key, series in list(state.series.items()):
        is_stale = max(series.state.updated_ns, resumed_ns) < stale_ns and not series.pending
        if is_stale or series.state.model not in state.models:
            state.remove_series(key, now_ns)
    remove_ended_series(state, now_ns, after_ns=min(ENDED_AFTER_NS, windows.stale_after_ns), resumed_ns=resumed_ns)
    state.remove_ended(stale_ns)
    state.prune_panes()


def remove_ended_series(state: WindowState, now_ns: int, *, after_ns: int, resumed_ns: int) -> None:
    """Removes the cumulative series of senders that have sent nothing for `after_ns` nanoseconds."""
    if resumed_ns > now_ns - after_ns:
        return
    by_sender: dict[str, list[TimeSeries]] = {}
    for series in state.series.values():
        by_sender.setdefault(series.state.sender, []).append(series)
    for sent in by_sender.values():
        if any(series.pending or series.state.updated_ns >= now_ns - after_ns for series in sent):
            continue
        for series in sent:
            state.remove_series(series.state.key, now_ns)


def _remove_ended_models(state: WindowState, now_ns: int, resumed_ns: int) -> list[StreamKey]:
    """Removes models that are silent for longer than they are stored, and versions that another one replaced."""
    newest_ns: dict[tuple[str, str], int] = {}
    for key, model in state.models.items():
        name = key.name, key.environment
        newest_ns[name] = max(newest_ns.get(name, 0), model.progress.received_ns)
    removed: list[StreamKey] = []
    for key, model in list(state.models.items()):
        received_ns = model.progress.received_ns
        is_replaced = received_ns < newest_ns[key.name, key.environment]
        is_stale = max(received_ns, resumed_ns) < now_ns - state.windows.stale_after_ns
        if received_ns < now_ns - state.windows.retention_ns or (is_replaced and is_stale):
            removed += state.remove_model(key)
    return removed


def _remove_silent_streams(state: WindowState) -> list[StreamKey]:
    """Removes streams without values for `stale_after` of models that still send data."""
    removed: list[StreamKey] = []
    for model in state.models.values():
        stale_ns = model.progress.last_ns - state.windows.stale_after_ns
        for name, presence in list(model.presences.items()):
            if presence.silence.panes < MIN_SILENT_PANES or presence.last_ns > stale_ns:
                continue
            del model.presences[name]
            state.changes.presences.add(model.key)
            if name in model.streams:
                removed.append(model.streams[name].key)
                state.remove_stream(removed[-1])
    return removed
