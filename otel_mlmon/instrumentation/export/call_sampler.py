"""Chooses which inference calls get a span or event: failed ones first, and some of every model.

A round is everything that was decoded since the last one. What is granted a second is divided: a reserve of one half
for failed calls, of one quarter for slow and unsure ones, and what remains, with what the reserves cannot save up,
first by even shares among models and then by chance among all calls. A chosen call knows with which probability it was
chosen, so that weights of one over it give true totals, quantiles and error rates.

Source: systematic sampling (Särndal, Swensson, Wretman, Model Assisted Survey Sampling, 3.4). Within a pool the calls
are ordered by duration, and chosen at even distances from a start that moves from round to round by the golden ratio:
so that weighted quantiles of durations are near the true ones after a hundred calls, not after ten thousand. Fractions
of a call are carried to the next round, so that any number of short rounds chooses as many calls as one long one.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import Predictions, compute_call_confidences
from otel_mlmon.types import Bools, Floats, Ints, ModelKey

LATENCY_WINDOW: Final = 2048
"""Latest calls of a model whose 99th percentile decides which calls are slow."""

MIN_LATENCIES: Final = 500
"""The number of calls of a model from which on its 99th percentile is used."""

MAX_MODELS: Final = 1024
"""Models whose latencies are kept, 16 KiB each; beyond it the oldest begins anew."""

SAVED_S: Final = 2.0
"""Seconds' worth of calls that is saved up while fewer are made: a program of twenty calls shows all of them."""

FAILURE_RESERVE: Final = 0.5
"""Share of the calls granted that failed ones have for themselves."""

PRIORITY_RESERVE: Final = 0.25
"""Share of the calls granted that slow and unsure ones have for themselves."""

MAX_POOLS: Final = 4096
"""Pools whose fraction and start are carried over to the next round, the latest ones: a few a model."""

GOLDEN: Final = (5**0.5 - 1) / 2

SamplingReason: TypeAlias = Literal["failed", "slow", "unsure", "share", "chance"]


class CallSample(NamedTuple):
    """Says why an inference call was chosen for a span or event, and with which probability."""

    reason: SamplingReason
    probability: float
    """Within (0, 1]."""


Samples: TypeAlias = Mapping[int, CallSample]
"""The chosen calls of a batch, by position."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallPriorities:
    """Marks the inference calls of a batch that failed, were slow or unsure, and are sampled before others."""

    failed: Bools
    unsure: Bools
    slow: Bools
    mean_confidence: Floats
    """Mean confidence of the call's rows; NaN if it has none."""
    min_confidence: Floats
    """Lowest confidence of the call's rows; NaN if it has none."""

    @property
    def is_priority(self) -> Bools:
        """Whether each inference call failed, was slow or was unsure; shape (n,)."""
        return self.failed | self.unsure | self.slow


def prioritize_calls(
    predictions: Predictions, *, slow: Bools | None = None, confidence_floor: float = 0.0
) -> CallPriorities:
    """Marks the inference calls of a batch that failed, were slow or unsure.

    Args:
        predictions: n calls.
        slow: Shape (n,), from `SlowCallDetector`; None if none is slow.
        confidence_floor: A call with a row of lower confidence is unsure; within [0, 1].
    """
    calls = len(predictions.errors)
    errors = predictions.errors
    is_failed = [error is not None for error in errors] if any(errors) else np.zeros(calls)
    mean_confidence, min_confidence = compute_call_confidences(predictions.confidences, calls)
    return CallPriorities(
        failed=np.array(is_failed, dtype=bool),
        unsure=_mark_unsure_calls(predictions, min_confidence, confidence_floor),
        slow=np.zeros(calls, dtype=bool) if slow is None else slow,
        mean_confidence=mean_confidence,
        min_confidence=min_confidence,
    )


class SlowCallDetector:
    """Finds slow inference calls by a threshold, and by the 99th percentile of each model's durations."""

    def __init__(self) -> None:
        self._durations_ns: dict[str, Ints] = {}

    def detect_slow_calls(self, model: str, durations_ns: Ints, threshold_s: float | None) -> Bools:
        """Marks the inference calls slower than the threshold, or than 99 % of the model's calls before.

        Args:
            model: Name of the model.
            durations_ns: Shape (n,); remembered for the next batch. 0 if nobody measured, which is never slow.
            threshold_s: In seconds, above 0; None to use the percentile alone.
        """
        limit_ns = np.inf if threshold_s is None else threshold_s * 1e9
        past_ns = self._durations_ns.get(model, durations_ns[:0])
        if past_ns.size >= MIN_LATENCIES:
            rank = int(0.99 * (past_ns.size - 1))
            limit_ns = min(limit_ns, float(np.partition(past_ns, rank)[rank]))
        if model not in self._durations_ns and len(self._durations_ns) >= MAX_MODELS:
            del self._durations_ns[next(iter(self._durations_ns))]
        measured_ns = durations_ns[durations_ns > 0]
        self._durations_ns[model] = np.concatenate([past_ns, measured_ns[-LATENCY_WINDOW:]])[-LATENCY_WINDOW:]
        return np.asarray(durations_ns > limit_ns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SamplingRound:
    """Holds all inference calls among which those with a span or event are chosen at one time."""

    starts: Sequence[int]
    """Position of the first call of each batch, and n at the end."""
    models: Sequence[ModelKey]
    """The models; `codes` counts them from 0."""
    codes: Ints
    """Shape (n,): the model of each call."""
    failed: Bools
    slow: Bools
    unsure: Bools
    durations_ns: Ints


def make_sampling_round(
    models: Sequence[ModelKey], priorities: Sequence[CallPriorities], durations_ns: Sequence[Ints]
) -> SamplingRound:
    """Joins the inference calls of several batches, to choose among all those that get a span or event.

    Args:
        models: The model of each batch.
        priorities: Of the calls of each batch.
        durations_ns: Likewise.
    """
    lengths = [len(batch.failed) for batch in priorities]
    codes = {model: code for code, model in enumerate(dict.fromkeys(models))}

    def join_flags(flags: Callable[[CallPriorities], Bools]) -> Bools:
        return np.concatenate([np.zeros(0, dtype=bool), *map(flags, priorities)])

    return SamplingRound(
        starts=np.cumsum([0, *lengths]).tolist(),
        models=list(codes),
        codes=np.repeat(np.array([codes[model] for model in models], dtype=np.int64), lengths),
        failed=join_flags(lambda batch: batch.failed),
        slow=join_flags(lambda batch: batch.slow),
        unsure=join_flags(lambda batch: batch.unsure),
        durations_ns=np.concatenate([np.zeros(0, dtype=np.int64), *durations_ns]),
    )


def build_sampling_attributes(sample: CallSample | None) -> dict[str, str | int | float]:
    """Builds the attributes that say why a call got a span, and with which probability; none if its parent has one."""
    if sample is None:
        return {}
    return {semconv.SAMPLING_REASON: sample.reason, semconv.SAMPLING_PROBABILITY: sample.probability}


class CallSampler:
    """Chooses inference calls that get a span or event, on average at most a given number a second.

    A pause saves up two seconds' worth, and either reserve one second's worth of it beside that, at least one call.

    Runs on: one thread at a time.

    Args:
        per_second: 0 or above; 0 chooses none.
        seed: Where each pool begins. Signals of one seed choose the same calls among the same candidates.
        clock: Seconds, monotonic.
    """

    def __init__(self, per_second: float, *, seed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._failures = _SampleBudget(FAILURE_RESERVE * per_second, max(FAILURE_RESERVE * per_second, 1.0))
        self._priorities = _SampleBudget(PRIORITY_RESERVE * per_second, max(PRIORITY_RESERVE * per_second, 1.0))
        others_per_second = (1.0 - FAILURE_RESERVE - PRIORITY_RESERVE) * per_second
        self._others = _SampleBudget(others_per_second, max(SAVED_S * per_second, 1.0))
        self._draws = _EvenSampler(seed)
        self._refilled_at_s = clock()

    def choose_calls(self, calls: SamplingRound, candidates: Sequence[Bools]) -> list[dict[int, CallSample]]:
        """Chooses the inference calls that get a span or event, among the candidates of one round.

        Args:
            calls: The round.
            candidates: Of each batch, shape (calls,): whether the call may be chosen.

        Returns:
            The chosen calls of each batch, by position.
        """
        chosen: list[dict[int, CallSample]] = [{} for _ in candidates]
        selection = _CallSelection(calls, np.concatenate([np.zeros(0, dtype=bool), *candidates]), self._draws)
        if self._per_second and selection.is_candidate.any():
            self._select_calls(calls, selection)
            for position, sample in selection.iterate_samples():
                batch = int(np.searchsorted(calls.starts, position, side="right")) - 1
                chosen[batch][position - calls.starts[batch]] = sample
        return chosen

    def _select_calls(self, calls: SamplingRound, selection: _CallSelection) -> None:
        now_s = self._clock()
        elapsed_s = min(now_s - self._refilled_at_s, SAVED_S)
        self._refilled_at_s = now_s
        for budget in (self._failures, self._priorities, self._others):
            budget.refill_tokens(elapsed_s)
        failures, priorities, others = self._failures, self._priorities, self._others
        failures.tokens -= selection.draw_calls_evenly("failed", calls.failed, failures.tokens)
        is_slow = calls.slow & ~calls.failed
        is_unsure = calls.unsure & ~calls.failed & ~calls.slow
        # Neither kind takes the other's half of the reserve while that one has calls for it.
        half = priorities.tokens / 2
        slow_tokens = max(half, priorities.tokens - selection.count_unchosen(is_unsure))
        priorities.tokens -= selection.draw_calls_evenly("slow", is_slow, slow_tokens)
        priorities.tokens -= selection.draw_calls_evenly("unsure", is_unsure, priorities.tokens)
        others.tokens += failures.take_excess_tokens() + priorities.take_excess_tokens()
        others.take_excess_tokens()
        pools = selection.group_by_model(selection.is_candidate)
        share = others.tokens / max(1, len(pools))
        for pool in pools:
            others.tokens -= selection.draw_calls("share", pool, share)
        others.tokens -= selection.draw_calls("chance", selection.group_all_calls(), others.tokens)


class _SampleBudget:
    """Allows a number of samples a second, and saves those that are not used, up to a limit."""

    __slots__ = ("_limit", "_per_second", "tokens")

    def __init__(self, per_second: float, limit: float) -> None:
        self._per_second = per_second
        self._limit = limit
        self.tokens = limit

    def refill_tokens(self, elapsed_s: float) -> None:
        """Adds to the budget the samples that the time since the last round of sampling allows."""
        self.tokens += elapsed_s * self._per_second

    def take_excess_tokens(self) -> float:
        """Removes from the budget, and returns, the number of samples beyond its limit."""
        excess = max(0.0, self.tokens - self._limit)
        self.tokens -= excess
        return excess


class EvenDraws(Iterator[float]):
    """Yields numbers in [0, 1) that are spread evenly: of any twenty in a row at least one is below 0.1.

    Source: the golden rotation, an additive recurrence of low discrepancy (Niederreiter, Random Number Generation and
    Quasi-Monte Carlo Methods, 3.1). Unlike a fixed period it does not beat with one in the traffic.

    Args:
        rng: Where it begins.
    """

    def __init__(self, rng: random.Random) -> None:
        self._last = rng.random()

    def __next__(self) -> float:
        """Returns the next number in [0, 1) of the evenly spread sequence."""
        self._last = (self._last + GOLDEN) % 1.0
        return self._last


class _EvenSampler:
    """Chooses at which positions of a group of calls samples are taken, evenly spread over rounds."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._fractions: OrderedDict[tuple[SamplingReason, ModelKey | None], float] = OrderedDict()
        self._starts: dict[tuple[SamplingReason, ModelKey | None], EvenDraws] = {}

    def choose_ranks(self, pool: tuple[SamplingReason, ModelKey | None], expected: float, size: int) -> list[int]:
        """Returns the positions, ascending, of the calls chosen from a group, `expected` of `size` on average."""
        if pool not in self._fractions:
            rng = random.Random(f"{self._seed} {pool}")  # noqa: S311 - a choice of samples, not a secret
            self._fractions[pool], self._starts[pool] = rng.random(), EvenDraws(rng)
            if len(self._fractions) > MAX_POOLS:
                del self._starts[self._fractions.popitem(last=False)[0]]
        self._fractions.move_to_end(pool)
        whole, self._fractions[pool] = divmod(expected + self._fractions[pool], 1.0)
        count = min(int(whole), size)
        if count in {0, size}:
            return list(range(count))
        start, distance = next(self._starts[pool]), size / count
        return [min(int((step + start) * distance), size - 1) for step in range(count)]


class _CallGroup(NamedTuple):
    """Holds a group of inference calls that are chosen with the same probability, such as one model's slow ones."""

    model: ModelKey | None
    """None stands for all models."""
    members: Ints
    """Positions of the calls that belong to it, chosen before or not: each has the probability of its draw."""
    left: Ints
    """Positions of those that are not chosen yet."""


class _CallSelection:
    """Chooses inference calls in several steps; a call not chosen in one step takes part in the next."""

    def __init__(self, calls: SamplingRound, is_candidate: Bools, draws: _EvenSampler) -> None:
        self.is_candidate = is_candidate
        """Shape (n,)."""
        self._is_left = is_candidate.copy()
        self._calls = calls
        self._draws = draws
        self._miss_probability = np.ones(is_candidate.size)
        self._reasons: dict[int, SamplingReason] = {}

    def count_unchosen(self, flags: Bools) -> int:
        """Counts the calls of one kind, such as the failed ones, that are not chosen yet."""
        return int(np.count_nonzero(flags & self._is_left))

    def group_all_calls(self) -> _CallGroup:
        """Returns all inference calls that may get a span or event as one group."""
        return _CallGroup(None, np.flatnonzero(self.is_candidate), np.flatnonzero(self._is_left))

    def group_by_model(self, flags: Bools) -> list[_CallGroup]:
        """Groups the calls of one kind, such as the slow ones, by model, the smallest group first."""
        members = np.flatnonzero(flags & self.is_candidate)
        if not members.size:
            return []
        codes = self._calls.codes[members]
        pools = []
        for code in np.unique(codes).tolist() if len(self._calls.models) > 1 else [0]:
            of_model = members[codes == code]
            left = of_model[self._is_left[of_model]]
            if left.size:
                pools.append(_CallGroup(self._calls.models[code], of_model, left))
        return sorted(pools, key=lambda pool: pool.left.size)

    def draw_calls_evenly(self, reason: SamplingReason, flags: Bools, tokens: float) -> float:
        """Chooses calls of one kind, such as the slow ones, so that each model gets its share of the samples.

        Returns:
            The expected number of calls drawn: at most `tokens`.
        """
        pools, spent = self.group_by_model(flags), 0.0
        for index, pool in enumerate(pools):
            spent += self.draw_calls(reason, pool, (tokens - spent) / (len(pools) - index))
        return spent

    def draw_calls(self, reason: SamplingReason, pool: _CallGroup, tokens: float) -> float:
        """Chooses calls of a group with equal probability; returns how many are expected, at most `tokens`."""
        left = pool.left
        expected = min(float(left.size), max(0.0, tokens))
        if not expected:
            return 0.0
        self._miss_probability[pool.members] *= 1.0 - expected / left.size
        ranks = self._draws.choose_ranks((reason, pool.model), expected, left.size)
        if len(ranks) < left.size:
            left = left[np.argpartition(self._calls.durations_ns[left], ranks)[ranks]] if ranks else left[:0]
        self._is_left[left] = False
        self._reasons.update(dict.fromkeys(left.tolist(), reason))
        return expected

    def iterate_samples(self) -> Iterator[tuple[int, CallSample]]:
        """Yields the position of each chosen call, why it was chosen and with which probability."""
        for position, reason in sorted(self._reasons.items()):
            yield position, CallSample(reason, 1.0 - float(self._miss_probability[position]))


def _mark_unsure_calls(predictions: Predictions, min_confidence: Floats, confidence_floor: float) -> Bools:
    """Marks the inference calls that have a row with a confidence below the limit."""
    is_unsure: Bools = np.asarray(min_confidence < confidence_floor)
    for head in list(predictions.heads.values())[1:]:
        low = head.confidences.calls[head.confidences.values < confidence_floor]
        is_unsure[low] = True
    return is_unsure
