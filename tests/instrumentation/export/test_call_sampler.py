from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.export.call_sampler import (
    CallPriorities,
    CallSample,
    CallSampler,
    SamplingRound,
    SlowCallDetector,
    build_sampling_attributes,
    make_sampling_round,
)
from otel_mlmon.types import Bools, Floats, ModelKey
from tests.support.simulations import choose_size

A, B, C = ModelKey("a"), ModelKey("b"), ModelKey("c")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def priorities(calls: int, *, failed: object = (), slow: object = (), unsure: object = ()) -> CallPriorities:
    """Calls of which those at some positions failed, were slow or unsure."""
    flags = [np.isin(np.arange(calls), np.array(positions, dtype=int)) for positions in (failed, slow, unsure)]
    nothing = np.full(calls, np.nan)
    return CallPriorities(
        failed=flags[0], slow=flags[1], unsure=flags[2], mean_confidence=nothing, min_confidence=nothing
    )


def every(batch: CallPriorities) -> Bools:
    return np.ones_like(batch.failed)


def join(batches: Sequence[tuple[ModelKey, CallPriorities]]) -> SamplingRound:
    """Joins batches whose calls took longer and longer."""
    durations_ns = [np.arange(len(batch.failed)) for _, batch in batches]
    return make_sampling_round([model for model, _ in batches], [batch for _, batch in batches], durations_ns)


def choose(sampler: CallSampler, batches: Sequence[tuple[ModelKey, CallPriorities]]) -> list[dict[int, CallSample]]:
    """Chooses among all calls of batches."""
    calls = join(batches)
    return sampler.choose_calls(calls, [every(batch) for _, batch in batches])


def test_whatever_fits_is_chosen_with_certainty() -> None:
    sampler = CallSampler(10.0, seed=1, clock=Clock())
    batch = priorities(20, failed=[3], slow=[4], unsure=[5, 3])
    (chosen,) = choose(sampler, [(A, batch)])
    reasons = {3: "failed", 4: "slow", 5: "unsure"}
    assert chosen == {call: CallSample(reasons.get(call, "share"), 1.0) for call in range(20)}  # type: ignore[arg-type]


def test_a_rate_of_zero_chooses_nothing_and_no_calls_are_nothing() -> None:
    assert choose(CallSampler(0.0, seed=1), [(A, priorities(3, failed=[1]))]) == [{}]
    assert choose(CallSampler(9.0, seed=1), []) == []
    assert choose(CallSampler(9.0, seed=1), [(A, priorities(0))]) == [{}]


def test_calls_that_are_no_candidates_are_never_chosen() -> None:
    batch = priorities(6, failed=[0, 1], slow=[2, 3])
    calls = join([(A, batch)])
    may_be_chosen = np.array([False, True, False, True, True, False])
    (chosen,) = CallSampler(10.0, seed=1, clock=Clock()).choose_calls(calls, [may_be_chosen])
    assert chosen == {1: CallSample("failed", 1.0), 3: CallSample("slow", 1.0), 4: CallSample("share", 1.0)}


def test_failures_have_half_slow_and_unsure_calls_a_quarter_and_models_even_shares() -> None:
    clock = Clock()
    sampler = CallSampler(20.0, seed=1, clock=clock)
    often = priorities(1000, failed=range(100), slow=range(100, 200), unsure=range(200, 300))
    counts: Counter[tuple[str, str]] = Counter()
    rounds = 300
    for _ in range(rounds + 2):
        chosen = choose(sampler, [(A, often), (B, priorities(2))])
        if clock.now_s >= 2:  # what was saved up is spent
            counts.update(
                (model, sample.reason) for model, of in zip("ab", chosen, strict=True) for sample in of.values()
            )
        clock.now_s += 1.0
    shares = {key: count / rounds for key, count in counts.items()}
    # Ten for failures; five for slow and unsure; of the five left 2.5 each, of which b has only two calls.
    assert shares == pytest.approx(
        {("a", "failed"): 10, ("a", "slow"): 2.5, ("a", "unsure"): 2.5, ("a", "share"): 2.5, ("b", "share"): 2.0,
         ("a", "chance"): 0.5},
        abs=0.02,
    )  # fmt: skip


@pytest.mark.parametrize(("per_second", "count"), [(0.4, 1), (2.0, 1), (6.0, 3)])
def test_failures_begin_with_a_second_of_their_half_or_one_call(per_second: float, count: int) -> None:
    sampler = CallSampler(per_second, seed=1, clock=Clock())
    batch = priorities(50, failed=range(50))
    counts = [Counter(call.reason for call in choose(sampler, [(A, batch)])[0].values())["failed"] for _ in range(2)]
    assert counts == [count, 0]


def test_a_failure_of_a_model_seldom_called_comes_before_the_hundredth_of_another() -> None:
    clock = Clock()
    sampler = CallSampler(10.0, seed=1, clock=clock)
    for _ in range(50):
        outage, seldom = choose(sampler, [(A, priorities(500, failed=range(500))), (B, priorities(9, failed=[4]))])
        assert seldom[4] == CallSample("failed", 1.0)
        clock.now_s += 1.0
    assert {sample.reason for sample in outage.values()} == {"failed", "share"}


@settings(deadline=None, max_examples=40)
@given(
    st.floats(0.1, 30),
    st.lists(
        st.tuples(st.floats(0, 3), st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 60)), max_size=4)),
        min_size=1,
        max_size=15,
    ),
    st.integers(0, 9),
)
def test_no_more_are_chosen_than_are_granted(
    per_second: float, rounds: list[tuple[float, list[tuple[ModelKey, int]]]], seed: int
) -> None:
    clock = Clock()
    sampler = CallSampler(per_second, seed=seed, clock=clock)
    count, pools = 0, set[tuple[ModelKey, str]]()
    for pause_s, batches in rounds:
        clock.now_s += pause_s
        flagged = [
            (model, priorities(calls, failed=range(0, calls, 3), slow=range(0, calls, 4), unsure=range(0, calls, 5)))
            for model, calls in batches
        ]
        for (model, batch), chosen in zip(flagged, choose(sampler, flagged), strict=True):
            assert all(0 < sample.probability <= 1 for sample in chosen.values())
            assert all(batch.failed[call] for call, sample in chosen.items() if sample.reason == "failed")
            assert all(batch.slow[call] for call, sample in chosen.items() if sample.reason == "slow")
            assert all(batch.unsure[call] for call, sample in chosen.items() if sample.reason == "unsure")
            pools |= {(model, sample.reason) for sample in chosen.values()}
            count += len(chosen)
    saved = 2 * per_second + max(per_second / 2, 1) + max(per_second / 4, 1) + max(0, 1 - 2 * per_second)
    # Each pool may round up by less than one call.
    assert count <= saved + per_second * clock.now_s + len(pools) + 1e-6


def test_short_rounds_choose_as_many_as_long_ones() -> None:
    for rounds_a_second in (1, 7, 50):
        clock = Clock()
        sampler = CallSampler(10.0, seed=3, clock=clock)
        count = 0
        for _ in range(40 * rounds_a_second):
            (chosen,) = choose(sampler, [(A, priorities(5000 // rounds_a_second))])
            count += len(chosen)
            clock.now_s += 1 / rounds_a_second
        assert count == pytest.approx(20 + 10 * 40, abs=11)


def test_signals_of_one_round_choose_the_same_calls() -> None:
    clock = Clock()
    spans, events = (CallSampler(10.0, seed=8, clock=clock) for _ in range(2))
    for _ in range(20):
        batch = priorities(700, failed=range(9), slow=range(20, 30))
        calls = join([(A, batch)])
        assert spans.choose_calls(calls, [every(batch)]) == events.choose_calls(calls, [every(batch)])
        clock.now_s += 1.0


@pytest.mark.simulation
def test_each_calls_chance_is_the_probability_it_is_told() -> None:
    """Mean of one over the probability, over those chosen, is the number of calls: of each kind by itself."""
    totals = np.zeros(4)
    rounds = choose_size(1_500, 4_000)
    clock = Clock()
    sampler = CallSampler(8.0, seed=6, clock=clock)
    batch = priorities(60, failed=range(10), slow=range(10, 20), unsure=range(20, 30))
    for _ in range(rounds):
        (chosen,) = choose(sampler, [(A, batch)])
        for call, sample in chosen.items():
            totals[min(call // 10, 3)] += 1 / sample.probability
        clock.now_s += 0.3
    np.testing.assert_allclose(totals / rounds, [10, 10, 10, 30], rtol=0.05)


def test_the_attributes_say_why_and_how_likely() -> None:
    assert build_sampling_attributes(CallSample("slow", 0.25)) == {
        "ml.sampling.reason": "slow",
        "ml.sampling.probability": 0.25,
    }
    assert build_sampling_attributes(None) == {}


def weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values)
    position = np.searchsorted(np.cumsum(weights[order]), share * weights.sum())
    return float(values[order][position])


@pytest.mark.simulation
@pytest.mark.parametrize("seed", range(choose_size(4, 20)))
def test_failures_are_there_and_weighted_figures_are_true(seed: int) -> None:
    """Five minutes at 500 calls a second, 490 : 10 by model, one in a hundred failing."""
    random_values, clock = np.random.default_rng(seed), Clock()
    spans, events = (CallSampler(10.0, seed=seed, clock=clock) for _ in range(2))
    detector = SlowCallDetector()
    seconds = 300
    durations: dict[str, list[Floats]] = {"a": [], "b": []}
    sampled: dict[str, list[tuple[float, float, bool]]] = {"a": [], "b": []}
    failures, reserve = 0, 5.0  # the sampler begins with its reserve saved up
    for _ in range(seconds):
        batches, of_round = [], {}
        for model, calls in ((A, 490), (B, 10)):
            of_round[model.name] = random_values.lognormal(-6 if model is A else -5, 0.5, calls)
            durations[model.name].append(of_round[model.name])
            failed = np.flatnonzero(random_values.random(calls) < 0.01)
            failures += failed.size
            slow = detector.detect_slow_calls(model.name, (of_round[model.name] * 1e9).astype(np.int64), None)
            batches.append((model, priorities(calls, failed=failed, slow=np.flatnonzero(slow))))
        calls_of_round = make_sampling_round(
            [model for model, _ in batches],
            [batch for _, batch in batches],
            [(values * 1e9).astype(np.int64) for values in of_round.values()],
        )
        with_span, with_event = (
            sampler.choose_calls(calls_of_round, [every(batch) for _, batch in batches]) for sampler in (spans, events)
        )
        assert with_span == with_event
        reserve += 5.0 if clock.now_s else 0.0
        failing = sum(int(batch.failed.sum()) for _, batch in batches)
        shown = [
            sample
            for (_, batch), of in zip(batches, with_span, strict=True)
            for call, sample in of.items()
            if batch.failed[call]
        ]
        if failing <= reserve:
            assert len(shown) == failing
            assert {sample.probability for sample in shown} <= {1.0}
        else:
            assert len(shown) >= int(reserve)
        reserve = min(5.0, max(0.0, reserve - failing))
        for (model, batch), of in zip(batches, with_span, strict=True):
            for call, sample in of.items():
                value = float(of_round[model.name][call])
                sampled[model.name].append((value, 1 / sample.probability, bool(batch.failed[call])))
        clock.now_s += 1.0
    assert len(sampled["b"]) >= 1.25 * seconds
    everything = np.array([row for rows in sampled.values() for row in rows])
    weights = everything[:, 1]
    assert weights.sum() / seconds == pytest.approx(500, rel=0.1)
    assert weights[everything[:, 2] == 1].sum() == pytest.approx(failures, rel=0.1)
    for name, rows in sampled.items():
        values, weights, _ = np.array(rows).T
        truth = np.concatenate(durations[name])
        assert weights.sum() == pytest.approx(truth.size, rel=0.1)
        for share in (0.5, 0.95):
            assert weighted_quantile(values, weights, share) == pytest.approx(np.quantile(truth, share), rel=0.1)
