"""What a new model version takes over from the version before: which one that is, and its daily cycle over new bins.

A deploy does not change when people get up. The counts of whole days that the version before accepted are taken over,
and serve until as many days of a kind are known of the version itself. Bins of classes are the same by name, and a
class that the version before had not has its share of the reference at all times. Ordered bins of other edges get what
lies between their edges, values being taken as spread evenly within a bin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.state import CycleDay, CycleState
from otel_mlmon.processor.window.window import Bins, Reference, StreamKey
from otel_mlmon.types import Floats


def inherit_days(state: CycleState, bins: Bins, before: CycleState, reference: Reference) -> None:
    """Adds the days of the version before to the state of a cycle that begins.

    Args:
        state: Of the new version; changed.
        bins: Of the version before.
        before: Its cycle.
        reference: Of the new version.
    """
    days = before.days or before.inherited
    if bins.is_ordered != reference.bins.is_ordered or before.time_zone != state.time_zone:
        return
    state.slots, state.is_smoothed = before.slots, before.is_smoothed
    state.inherited = [replace(day, counts=_rebin(day, bins, reference)) for day in days]


def _rebin(day: CycleDay, bins: Bins, reference: Reference) -> NDArray[np.int32]:
    """Counts a day, shape (slots, K), over the bins of a reference."""
    if bins.names == reference.bins.names:
        return day.counts
    items = day.counts.sum(-1)
    shares = reference.counts / reference.total
    position = {name: index for index, name in enumerate(bins.names)}
    rebinned = items[:, None] * shares
    for index, name in enumerate(reference.bins.names):
        if name in position:
            rebinned[:, index] = day.counts[:, position[name]]
    if reference.bins.edges and bins.edges:
        rebinned[:, : len(reference.bins.edges) + 1] = _spread(day.counts, bins.edges, reference.bins.edges)
    counts: NDArray[np.int32] = np.rint(rebinned).astype(np.int32)
    return counts


def _spread(counts: NDArray[np.int32], edges: tuple[float, ...], others: tuple[float, ...]) -> Floats:
    """Counts over bins between other edges, row by row; the outer bins are taken to be as wide as their neighbours."""
    width = max((edges[-1] - edges[0]) / max(len(edges) - 1, 1), np.finfo(np.float64).tiny)
    places = np.array([edges[0] - width, *edges, edges[-1] + width])
    sums = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts[:, : len(edges) + 1], axis=-1)], axis=-1)
    inner = np.array([np.interp(others, places, row) for row in sums])
    spread: Floats = np.diff(inner, prepend=0.0, append=sums[:, -1:], axis=-1)
    return spread


class Lineage:
    """The versions of every stream of every model, so that a new one finds the version before."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str, str], dict[StreamKey, None]] = {}

    def add(self, stream: StreamKey) -> None:
        """Adds the stream of one version."""
        self._versions.setdefault(_name_of(stream), {})[stream] = None

    def remove(self, stream: StreamKey) -> None:
        """Removes it."""
        versions = self._versions.get(_name_of(stream), {})
        versions.pop(stream, None)
        if not versions:
            self._versions.pop(_name_of(stream), None)

    def find_before(self, stream: StreamKey, measure_traffic: Callable[[StreamKey], float]) -> StreamKey | None:
        """Finds the same stream of the version before: of several, the one that bears the traffic; None without any.

        Args:
            stream: Of a version that is new.
            measure_traffic: Returns how many values a stream had lately.
        """
        others = [other for other in self._versions.get(_name_of(stream), ()) if other != stream]
        return max(others, key=lambda other: (measure_traffic(other), other), default=None)


def _name_of(stream: StreamKey) -> tuple[str, str, str]:
    return stream.model.name, stream.model.environment, stream.stream
