"""Builds windows and scores for tests of the alert step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from otel_mlmon.processor.detect.score import DriftScore, State
from otel_mlmon.processor.window.window import (
    NO_NUMBERS,
    HistogramBins,
    NumberSum,
    ReferenceCounts,
    StreamKey,
    StreamWindow,
)
from otel_mlmon.sketch.moments import convert_to_exact_units
from otel_mlmon.types import ModelKey

MODEL = ModelKey("digits", "1")
SECOND_NS = 1_000_000_000
PANE_NS = 10 * SECOND_NS

Judged = tuple[StreamKey, tuple[StreamWindow, DriftScore]]


def build_sum(mean: float) -> NumberSum:
    """Builds the sum of one number; of none for NaN."""
    return NO_NUMBERS if math.isnan(mean) else NumberSum(convert_to_exact_units(mean), 1)


def judged(
    stream: str,
    state: State,
    *,
    model: ModelKey = MODEL,
    names: Sequence[str] = ("a", "b"),
    is_ordered: bool = False,
    reference: Sequence[int] = (500, 500),
    pane: Sequence[int] = (90, 10),
    rolling: Sequence[int] | None = None,
    means: tuple[float, float, float] = (float("nan"),) * 3,
    since_ns: int = 0,
    margin: float = 0.5,
    exemplars: tuple[str, ...] = (),
) -> Judged:
    """Builds window and score of one stream after one pane; `means` are of reference, rolling window and pane."""
    bins = HistogramBins(names=tuple(names), is_ordered=is_ordered)
    window = StreamWindow(
        stream=StreamKey(model, stream),
        start_ns=0,
        end_ns=PANE_NS,
        reference=None
        if state == "learning"
        else ReferenceCounts(bins=bins, counts=np.array(reference, dtype=np.int64), mean=means[0]),
        pane=np.array(() if state == "learning" else pane, dtype=np.int64),
        pane_numbers=build_sum(means[2]),
        rolling=np.array(pane if rolling is None else rolling, dtype=np.int64),
        rolling_start_ns=0,
        rolling_numbers=build_sum(means[1]),
        exemplars=exemplars,
    )
    is_drift = state == "drift"
    score = DriftScore(
        state=state,
        log10_evidence=7.0 + margin if is_drift else 0.0,
        log10_alarm_line=7.0,
        since_ns=since_ns or (5 * SECOND_NS if is_drift else 0),
    )
    return window.stream, (window, score)
