"""Which calls are worth a span or an event of their own, and what those say of a call."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import Confidences, Predictions
from otel_mlmon.types import Bools, Floats

WINDOW: Final = 2048
"""Calls whose 99th percentile is the running one."""

MIN_CALLS: Final = 500
"""Below this many the 99th percentile is one of the few slowest, and says nothing."""

MAX_MODELS: Final = 1024
"""Models whose running 99th percentile is known, 16 KiB each; of a forgotten one it begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interest:
    """What is special about each of n calls."""

    failed: Bools
    unsure: Bools
    slow: Bools
    mean: Floats
    """Mean confidence of the call's rows; NaN if there is none."""
    lowest: Floats
    """Lowest confidence of the call's rows; NaN if there is none."""

    @property
    def any(self) -> Bools:
        """Failed, unsure or slow."""
        return self.failed | self.unsure | self.slow


class Slowness:
    """The running 99th percentile of a model's durations."""

    def __init__(self) -> None:
        self._recent: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def slow(self, duration_ns: NDArray[np.int64], budget_s: float | None) -> Bools:
        """Which calls exceed the budget, or the 99th percentile of those before."""
        limit_ns = np.inf if budget_s is None else budget_s * 1e9
        if self._recent.size >= MIN_CALLS:
            rank = int(0.99 * (self._recent.size - 1))
            limit_ns = min(limit_ns, float(np.partition(self._recent, rank)[rank]))
        measured_ns = duration_ns[duration_ns > 0]
        self._recent = np.concatenate([self._recent, measured_ns[-WINDOW:]])[-WINDOW:]
        return np.asarray(duration_ns > limit_ns)


class Slownesses:
    """One a model, of the latest `MAX_MODELS` models: a process may name models without end."""

    def __init__(self) -> None:
        self._of: dict[str, Slowness] = {}

    def of(self, model: str) -> Slowness:
        """That of a model, by its name."""
        found = self._of.get(model)
        if found is None:
            if len(self._of) >= MAX_MODELS:
                del self._of[next(iter(self._of))]
            found = self._of[model] = Slowness()
        return found


def interest(
    predictions: Predictions, *, slowness: Slowness, budget_s: float | None, confidence_floor: float
) -> Interest:
    """What is special about each call of a batch."""
    errors = predictions.errors
    mean, lowest = _by_call(predictions.confidences, len(errors))
    is_failed = [error is not None for error in errors] if any(errors) else np.zeros(len(errors))
    return Interest(
        failed=np.array(is_failed, dtype=bool),
        unsure=lowest < confidence_floor,
        slow=slowness.slow(predictions.duration_ns, budget_s),
        mean=mean,
        lowest=lowest,
    )


def _by_call(confidences: Confidences, calls: int) -> tuple[Floats, Floats]:
    """Mean and lowest of the rows of each call; NaN if it has none."""
    values, of = confidences
    rows = np.bincount(of, minlength=calls)
    if (rows == 1).all():
        return values, values
    lowest = np.full(calls, np.inf)
    np.minimum.at(lowest, of, values)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(of, weights=values, minlength=calls) / rows
    return mean, np.where(rows > 0, lowest, np.nan)


class Limiter:
    """At most so many a second, with up to one second's worth saved up (token bucket).

    Args:
        per_second: 0 or above.
        clock: Seconds, monotonic.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_second
        self._clock = clock
        self._most = max(per_second, 1.0) if per_second else 0.0
        self._tokens = self._most
        self._at_s = clock()

    def grant(self, wanted: int) -> int:
        """How many of `wanted` may pass now."""
        now_s = self._clock()
        self._tokens = min(self._most, self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted


def choose(candidates: NDArray[np.int64], found: Interest, limiter: Limiter, rng: random.Random) -> list[int]:
    """As many candidates as the limiter grants, in order: failed, then unsure, then slow, then any of the rest."""
    granted = limiter.grant(candidates.size)
    if granted in {0, candidates.size}:
        return [int(call) for call in candidates[:granted]]
    chosen: list[int] = []
    for marked in (found.failed, found.unsure, found.slow, np.ones_like(found.failed)):
        is_marked = marked[candidates]
        special, candidates = candidates[is_marked], candidates[~is_marked]
        left = granted - len(chosen)
        chosen += special.tolist() if special.size <= left else special[rng.sample(range(special.size), left)].tolist()
    return sorted(chosen)


def attributes_of(predictions: Predictions, found: Interest, call: int) -> dict[str, str | int | float]:
    """What a span or an event says of one call: scalars, and nothing of its inputs or raw outputs."""
    model, said = predictions.model, predictions.labels
    attributes: dict[str, str | int | float] = {semconv.MODEL_NAME: model.name}
    if model.version:
        attributes[semconv.MODEL_VERSION] = model.version
    if predictions.duration_ns[call]:
        attributes[semconv.INFERENCE_DURATION] = int(predictions.duration_ns[call]) / 1e9
    batch = int(predictions.batch_sizes[call])
    if batch:
        attributes[semconv.BATCH_SIZE] = batch
    row = int(np.searchsorted(said.calls, call))
    if batch == 1 and row < said.calls.size and said.calls[row] == call:
        attributes[semconv.PREDICTION_LABEL] = said.table[int(said.codes[row])]
    if found.mean[call] == found.mean[call]:  # not NaN
        attributes[semconv.PREDICTION_CONFIDENCE] = float(found.mean[call])
        if batch > 1:
            attributes[semconv.PREDICTION_CONFIDENCE_MIN] = float(found.lowest[call])
    error = predictions.errors[call]
    if error:
        attributes[semconv.ERROR_TYPE] = error
    return attributes
