"""Simulates traffic with days and weekends, and judges it by an evaluator in panes of ten minutes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.state import DAY_NS
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey

MONDAY = 4
"""5 January 1970."""
PANES = 144
PER_PANE = 600
LOG10_LINE = math.log10(6.7e6)
POLICY = DetectionPolicy(tolerance=0.02, direction="both")


def traffic(
    kind: str, *, streams: int, days: int, seed: int, shift: float = 0.0, shifted_from: int = 0, amplitude: float = 0.05
) -> NDArray[np.int64]:
    """Draws counts of shape (streams, days, panes, 4), from a Monday on, 86,400 items a day.

    Args:
        kind: none, daily, square, weekend or batch.
        streams: How many, each with a phase of its own.
        days: How many.
        seed: Of the draws.
        shift: The share that moves from the first class to the last.
        shifted_from: The day from which on it has moved.
        amplitude: Of the cycle.
    """
    rng = np.random.default_rng(seed)
    day = np.arange(days)[None, :, None]
    time = (np.arange(PANES) + 0.5)[None, None] / PANES + rng.random((streams, 1, 1))
    time = time + rng.uniform(-1 / 72, 1 / 72, (streams, days, 1))
    moved = np.zeros((streams, days, PANES))
    if kind == "daily":
        moved = amplitude * rng.uniform(0.8, 1.2, (streams, days, 1)) * np.sin(2 * np.pi * time)
    elif kind == "square":
        moved = np.where((time % 1 > 0.35) & (time % 1 < 0.75), amplitude, -amplitude)
    elif kind == "weekend":
        moved = np.broadcast_to(np.where(day % 7 >= 5, 0.06, 0.0), moved.shape)
    gone = np.where(day >= shifted_from, shift, 0.0) * np.ones(moved.shape)
    shares = np.stack([0.4 - moved - gone, 0.3 + moved, 0.2 + 0 * moved, 0.1 + gone], axis=-1)
    counts = rng.multinomial(PER_PANE, shares)
    if kind == "batch":
        size = rng.uniform(0.8, 1.2, (streams, days)) * PER_PANE
        for pane in (12, 13, 14):
            counts[:, :, pane] += rng.multinomial(size.astype(int), [0.1, 0.2, 0.3, 0.4])
    return np.asarray(counts, dtype=np.int64)


def judge(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns whether each stream is in drift after each pane, shape (streams, days, panes)."""
    streams, days, panes, bins = counts.shape
    flat = counts.reshape(streams, days * panes, bins)
    evaluator = DriftEvaluator(policy_for=lambda _: POLICY, alarm_line_for=lambda _: LOG10_LINE, statistics={})
    names = HistogramBins(names=tuple("abcd"[:bins]), is_ordered=False)
    references = [ReferenceCounts(bins=names, counts=counts[:, 0, :8].sum(1)[stream]) for stream in range(streams)]
    result = np.zeros((streams, days * panes), dtype=bool)
    for pane in range(days * panes):
        start_ns = MONDAY * DAY_NS + pane * DAY_NS // panes
        scores = evaluator.evaluate(
            StreamWindow(
                stream=StreamKey(ModelKey("cycle", ""), f"input.{stream}"), start_ns=start_ns,
                end_ns=start_ns + DAY_NS // panes, reference=references[stream], pane=flat[stream, pane],
                rolling=flat[stream, pane], rolling_start_ns=start_ns,
            )
            for stream in range(streams)
        )  # fmt: skip
        result[:, pane] = [score.state == "drift" for _, score in scores]
    return result.reshape(streams, days, panes)


def count_alarms(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts the alarms of each stream that begin from the third day on."""
    drift = judge(counts).reshape(len(counts), -1)
    return np.asarray((drift[:, 1:] & ~drift[:, :-1])[:, 2 * PANES :].sum(1))


def hours_to_alarm(counts: NDArray[np.int64], *, from_day: int) -> NDArray[np.float64]:
    """Returns the hours from the begin of a day until a stream is in drift; infinite if it never is."""
    drift = judge(counts)
    late = drift[:, from_day:].reshape(len(counts), -1)
    hours = np.where(late.any(-1), (late.argmax(-1) + 1) * 24 / PANES, np.inf)
    return np.where(drift[:, from_day - 1, -1], np.nan, hours)
