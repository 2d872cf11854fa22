from __future__ import annotations

import random

import numpy as np

from otel_mlmon.instrumentation.export.sampling import MAX_MODELS, Interest, Limiter, Slowness, Slownesses, choose


def test_a_limiter_grants_its_rate_and_saves_up_one_second() -> None:
    now = [0.0]
    limiter = Limiter(10.0, clock=lambda: now[0])
    assert [limiter.grant(6), limiter.grant(6), limiter.grant(6)] == [6, 4, 0]
    now[0] = 0.3
    assert limiter.grant(9) == 3
    now[0] = 100.0
    assert limiter.grant(99) == 10
    assert Limiter(0.0, clock=lambda: now[0]).grant(5) == 0


def test_failed_then_unsure_then_slow_come_first() -> None:
    marks = np.eye(4, dtype=bool)
    found = Interest(failed=marks[3], unsure=marks[1], slow=marks[2], mean=np.zeros(4), lowest=np.zeros(4))
    rng = random.Random(1)
    chosen = [choose(np.arange(4), found, Limiter(float(rate), clock=lambda: 0.0), rng) for rate in range(5)]
    assert chosen == [[], [3], [1, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_slow_is_beyond_the_budget_or_the_running_99th_percentile() -> None:
    slowness = Slowness()
    calls = np.arange(1, 1001) * 1000
    assert slowness.slow(calls, 0.0009995).sum() == 1
    assert slowness.slow(np.array([985_000, 995_000]), None).tolist() == [False, True]


def test_models_without_end_are_not_remembered_without_end() -> None:
    slownesses = Slownesses()
    first, second = slownesses.of("0"), slownesses.of("1")
    for number in range(2, MAX_MODELS + 1):
        slownesses.of(str(number))
    assert slownesses.of("1") is second
    assert slownesses.of("0") is not first
