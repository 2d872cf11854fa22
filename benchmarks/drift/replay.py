"""Traffic through the processor's own steps: the reference that is learned, its bins, and the evaluator.

A stream learns from its first panes as the processor does (`StreamReference`), starts at a time of its first day of
its own, and is judged pane by pane from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.processor.detect.detectable import DetectableShift
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import compute_log10_alarm_line
from otel_mlmon.processor.detect.state import DAY_NS
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.processor.window.window import StreamKey, StreamWindow
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.types import Bools, Counts, Indices, ModelKey

BUDGET_STREAMS: Final = 20
LOG10_LINE: Final = compute_log10_alarm_line(false_alarms=1.0, per_s=30 * 86_400.0, pane_s=10.0, streams=BUDGET_STREAMS)
"""The default: one false alarm in 30 days over the streams of one processor, in panes of 10 s. Larger panes have the
same line here."""
TOLERANCE: Final = 0.02
STATES: Final = ("none", "learning", "ok", "weak", "drift")
"""States by code; `none` is a pane without items."""


@dataclass(slots=True)
class ClassStream:
    """One stream of classes: what it learns, and then the position of each class among its bins."""

    learned: StreamReference
    places: Indices | None = None

    def learn(self, counts: Counts, end_ns: int) -> None:
        """Learns a pane, shape (K,), that ends at `end_ns`."""
        names = {f"c{label}": int(count) for label, count in enumerate(counts) if count}
        self.learned.learn_reference(StreamSketch(categories=CategoryCounts(counts=names)), end_ns=end_ns)
        if self.learned.reference is not None:
            bins = self.learned.reference.bins.names
            other = bins.index(semconv.OTHER)
            order = {name: position for position, name in enumerate(bins)}
            self.places = np.array([order.get(f"c{label}", other) for label in range(counts.size)])

    def bin_counts(self, counts: Counts) -> Counts:
        """Counts a pane, or panes, over the bins of the reference."""
        assert self.learned.reference is not None
        assert self.places is not None
        binned = np.zeros((*counts.shape[:-1], self.learned.reference.bins.count), dtype=np.int64)
        np.add.at(np.moveaxis(binned, -1, 0), self.places, np.moveaxis(counts, -1, 0))
        return binned


@dataclass(slots=True, kw_only=True)
class Replay:
    """Judges streams pane by pane.

    Args:
        starts_ns: When the first day of each stream begins, shape (S,).
        panes: Panes in a day.
        first_panes: The first pane of each stream in its first day, shape (S,).
    """

    starts_ns: Counts
    panes: int
    first_panes: Indices
    log10_line: float = LOG10_LINE
    tolerance: float = TOLERANCE
    streams: list[ClassStream] = field(default_factory=list)
    day: int = 0
    evaluator: DriftEvaluator = field(init=False)
    design_effects: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        policy = DetectionPolicy(tolerance=self.tolerance, direction="both")
        self.evaluator = DriftEvaluator(
            policy_for=lambda _: policy, alarm_line_for=lambda _: self.log10_line, statistics={}
        )
        settings = ModelWindowSettings()
        self.streams = [
            ClassStream(StreamReference(stream=semconv.STREAM_LABEL, settings=settings)) for _ in self.starts_ns
        ]
        self.design_effects = np.ones(len(self.starts_ns))

    def judge_day(self, counts: Counts) -> NDArray[np.int8]:
        """Judges the panes of one day, shape (S, P, K); returns the state of each by its code, shape (S, P)."""
        states = np.zeros(counts.shape[:2], dtype=np.int8)
        has_items = np.asarray(counts.any(-1))
        if self.day == 0:
            has_items &= np.arange(self.panes)[None] >= self.first_panes[:, None]
        binned: list[Counts | None] = [
            stream.bin_counts(counts[row]) if stream.places is not None else None
            for row, stream in enumerate(self.streams)
        ]
        keys = self._list_keys()
        pane_ns = DAY_NS // self.panes
        for pane in range(self.panes):
            windows, rows = [], []
            for row in np.flatnonzero(has_items[:, pane]).tolist():
                stream, table = self.streams[row], binned[row]
                start_ns = int(self.starts_ns[row]) + self.day * DAY_NS + pane * pane_ns
                if table is None:
                    stream.learn(counts[row, pane], start_ns + pane_ns)
                    states[row, pane] = 1
                    if stream.places is not None:
                        binned[row] = stream.bin_counts(counts[row])
                    continue
                windows.append(
                    StreamWindow(
                        stream=keys[row],
                        start_ns=start_ns,
                        end_ns=start_ns + pane_ns,
                        reference=stream.learned.reference,
                        pane=table[pane],
                        rolling=table[pane],
                        rolling_start_ns=start_ns,
                    )
                )
                rows.append(row)
            for row, (_, score) in zip(rows, self.evaluator.evaluate(windows), strict=True):
                states[row, pane] = STATES.index(score.state)
                self.design_effects[row] = score.design_effect
        self.day += 1
        return states

    def measure_detectable(self) -> list[DetectableShift | None]:
        """Measures how small a drift of each stream would be found within a day now; None of one that learns."""
        keys = self._list_keys()
        detectable = self.evaluator.measure_detectable({key.model for key in keys})
        return [detectable.get(key.model, {}).get(key.stream) for key in keys]

    def find_weak(self) -> Bools:
        """Finds which streams are weak now, or learn; shape (S,)."""
        return np.array([shift is None or shift.weakness is not None for shift in self.measure_detectable()])

    def _list_keys(self) -> list[StreamKey]:
        return [StreamKey(ModelKey(f"m{row}", ""), semconv.STREAM_LABEL) for row in range(len(self.streams))]


def judge_days(replay: Replay, days: Iterable[Counts]) -> NDArray[np.int8]:
    """Judges all days; returns states of shape (S, D, P)."""
    return np.stack([replay.judge_day(day) for day in days], axis=1)


def find_alarms(states: NDArray[np.int8]) -> list[tuple[int, float]]:
    """Returns the stream and the time in days of every alarm that begins."""
    streams, _, panes = states.shape
    flat = states.reshape(streams, -1)
    alarms: list[tuple[int, float]] = []
    for stream in range(streams):
        judged = np.flatnonzero(flat[stream])
        is_drift = flat[stream, judged] == STATES.index("drift")
        begins = judged[is_drift & ~np.concatenate([[False], is_drift[:-1]])]
        alarms += [(stream, float(place) / panes) for place in begins]
    return alarms
