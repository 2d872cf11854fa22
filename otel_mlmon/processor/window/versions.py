"""Compares the first predictions of a new model version with those of the version before, stream by stream.

A version is new if another version of its model had predictions before its first point came. The version before is the
one with the most predictions of those that had some in the last five minutes: so of two versions at once, a canary
beside the one that bears the traffic, it is the latter. A stream of it is represented by its rolling window, or by its
reference where that window holds less than was collected of the new version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.processor.window.binning import ClassBins
from otel_mlmon.processor.window.model_windows import ModelWindows
from otel_mlmon.processor.window.progress import VersionIntroduction
from otel_mlmon.processor.window.reference import choose_binning
from otel_mlmon.processor.window.stream import StreamWindows
from otel_mlmon.processor.window.window import (
    HistogramBins,
    NumberSum,
    ReferenceCounts,
    StreamKey,
    StreamWindow,
    VersionPair,
)
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import Counts, ModelKey

LIVE_NS: Final = 300_000_000_000
"""Versions whose last panes are no further apart run at the same time."""
EXPECTED: Final = 20
"""Values that were to be expected of a stream before it counts as no longer sent."""
MAX_NEW_CLASSES: Final = 3
"""Classes that the version before never had and that get bins of their own: the most frequent."""
_ALLOWANCES: Final = frozenset({semconv.STREAM_LATENCY, semconv.STREAM_ERRORS})


def begin_introduction(models: Mapping[ModelKey, ModelWindows], key: ModelKey) -> VersionIntroduction | None:
    """Starts to collect the first predictions of a version; None if there is no version before it."""
    others = [
        model.progress
        for other, model in models.items()
        if other != key and (other.name, other.environment) == (key.name, key.environment) and model.progress.last_ns
    ]
    newest_ns = max((progress.last_ns for progress in others), default=0)
    live = [progress for progress in others if progress.last_ns >= newest_ns - LIVE_NS]
    before = max(live, key=lambda progress: (progress.predictions, progress.model), default=None)
    return VersionIntroduction(before=before.model) if before is not None else None


def pair_versions(
    models: Mapping[ModelKey, ModelWindows], model: ModelWindows, introduction: VersionIntroduction
) -> Iterator[VersionPair]:
    """Yields the first predictions of a new version paired with the version before, if that still exists."""
    before = models.get(introduction.before)
    if before is None:
        return
    present = {name: sketch for name, sketch in introduction.sketches.items() if name not in _ALLOWANCES}
    earlier = {name: stream for name, stream in before.streams.items() if name not in _ALLOWANCES}
    windows = [
        window
        for name, sketch in sorted(present.items())
        if name in earlier and (window := _pair_stream_versions(earlier[name], model, sketch)) is not None
    ]
    activity = max((_count_rolling_values(stream) for stream in earlier.values()), default=0)
    absent = (
        name
        for name, stream in sorted(earlier.items())
        if name not in present
        and _count_rolling_values(stream) * introduction.predictions >= EXPECTED * max(activity, 1)
    )
    yield VersionPair(
        model=model.key,
        before=before.key,
        time_ns=model.progress.last_ns,
        predictions=introduction.predictions,
        windows=tuple(windows),
        absent=tuple(absent),
        added=tuple(sorted(present.keys() - earlier.keys())),
    )


def _count_rolling_values(stream: StreamWindows) -> int:
    return int(stream.rolling_counts.sum())


def _pair_stream_versions(before: StreamWindows, model: ModelWindows, sketch: StreamSketch) -> StreamWindow | None:
    """Returns a stream's first values as a window with the version before as reference; None if not comparable."""
    learned = before.learned
    binning, mean, counts = learned.binning, before.rolling_mean, before.rolling_counts
    if binning is None:
        if not learned.state.sketch.total:
            return None
        binning = choose_binning(
            before.key.stream, learned.state.sketch, grid=learned.state.grid, settings=learned.settings
        )
    if before.reference is None:
        mean, counts = learned.state.sketch.moments.mean, binning.count(learned.state.sketch)
    elif _count_rolling_values(before) < min(sketch.total, before.reference.total):
        mean, counts = before.reference.mean, before.reference.counts
    if not sketch.total or not counts.any() or binning.find_required_grid(sketch) is not None:
        return None
    bins, current = binning.bins, binning.count(sketch)
    if isinstance(binning, ClassBins):
        bins, counts, current = _split_new_classes(binning, counts, current, sketch)
    return StreamWindow(
        stream=StreamKey(model.key, before.key.stream),
        start_ns=model.progress.first_ns,
        end_ns=model.progress.last_ns,
        reference=ReferenceCounts(bins=bins, counts=counts, mean=mean),
        pane=current,
        rolling=current,
        rolling_start_ns=model.progress.first_ns,
        rolling_numbers=NumberSum.from_moments(sketch.moments),
    )


def _split_new_classes(
    binning: ClassBins, counts: Counts, current: Counts, sketch: StreamSketch
) -> tuple[HistogramBins, Counts, Counts]:
    """Gives bins of their own to frequent classes that the version before never had."""
    position = len(binning.labels) - 1
    unknown = {label: count for label, count in sketch.categories.counts.items() if label not in binning.labels}
    if counts[position] or not unknown:
        return binning.bins, counts, current
    labels = sorted(unknown, key=lambda label: (-unknown[label], label))[:MAX_NEW_CLASSES]
    added = np.array([unknown[label] for label in labels], dtype=np.int64)
    known = current.copy()
    known[position] -= added.sum()
    names = (*binning.bins.names, *labels)
    bins = HistogramBins(names=names, is_ordered=False)
    return bins, np.append(counts, np.zeros_like(added)), np.append(known, added)
