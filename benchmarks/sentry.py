"""What Sentry costs a call, by hand and by `otel_mlmon`, with nothing sent over a network.

`python -m benchmarks.sentry` prints how much more a call outside any transaction costs than without Sentry: the median
of the differences within a round, and between which of them it lies, 95 times of 100.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as `benchmarks` does

import argparse
import functools
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
import sentry_sdk
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.transport import Transport

from benchmarks.hot_path import CASES, Measured, Run, block, nothing, ours

CALLS_IN_A_TRANSACTION = 100


class NoTransport(Transport):
    """Takes envelopes and forgets them."""

    def capture_envelope(self, envelope: Any) -> None:
        """Nothing."""


@contextmanager
def sentry(rate: float | None) -> Iterator[None]:
    """Sentry initialised with a trace sample rate."""
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=NoTransport,
        traces_sample_rate=rate,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        enable_backpressure_handling=False,
    )
    try:
        yield
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)


def by_hand(run: Run) -> Run:
    """What a page of Sentry's documentation says."""

    def traced() -> Any:
        with sentry_sdk.start_span(op="ml.predict", name="predict bench") as span:
            outputs = run()
            span.set_data("ml.model.name", "bench")
        return outputs

    return traced


def measured_block(
    run: Run, calls: int, settle: Callable[[], object], *, sampled: bool | None
) -> tuple[float, float, float]:
    """`block` in no transaction (None), or in as many as it takes, whose ends count as CPU.

    With the garbage collector on, as in a service, and nothing left to it by the block before.
    """
    gc.collect()
    if sampled is None:
        return block(run, calls, settle)
    parts = []
    transactions = max(1, calls // CALLS_IN_A_TRANSACTION)
    cpu_ns = time.process_time_ns()
    for _ in range(transactions):
        with sentry_sdk.start_transaction(name="request", op="http.server", sampled=sampled):
            parts.append(block(run, CALLS_IN_A_TRANSACTION, nothing))
    settle()
    cpu_ns = time.process_time_ns() - cpu_ns
    p50_ns, p999_ns = (float(np.median([part[index] for part in parts])) for index in range(2))
    return p50_ns, p999_ns, cpu_ns / (transactions * CALLS_IN_A_TRANSACTION)


PLACES: tuple[tuple[str, bool | None], ...] = (
    ("outside", None),
    ("in an unsampled transaction", False),
    ("in a sampled transaction", True),
)


RATES: tuple[tuple[str, float | None], ...] = (("without Sentry", None), ("rate 0.1", 0.1), ("rate 1.0", 1.0))


def measure_sentry(
    *, rounds: int, calls: int, places: Sequence[tuple[str, bool | None]] = PLACES
) -> dict[str, dict[str, Measured]]:
    """Every variant at every place, round after round."""
    case = CASES[0]
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.model(), session_options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.random.default_rng(0).random(case.shape, dtype=np.float32)}
    bare = functools.partial(type(session).run, session, None, feed)
    for _ in range(200):
        bare()
    measured: dict[str, dict[str, Measured]] = {}
    for _, (place, sampled) in itertools.product(range(rounds), places):
        into = measured.setdefault(f"Sentry, {place}", {})
        with sentry(1.0):
            note(into, "bare", measured_block(bare, calls, nothing, sampled=sampled))
            note(into, "start_span by hand", measured_block(by_hand(bare), calls, nothing, sampled=sampled))
        for variant, rate in RATES:
            # Without Sentry there are no transactions to be in.
            if rate is None and sampled is not None:
                continue
            with sentry(rate), instrumented(is_off=rate is None) as handle:
                run = functools.partial(session.run, None, feed)
                for _ in range(50):
                    run()
                handle.flush(timeout_s=10)
                settle = functools.partial(handle.flush, timeout_s=10)
                note(into, f"otel_mlmon, {variant}", measured_block(run, calls, settle, sampled=sampled))
    return measured


def note(into: dict[str, Measured], name: str, figures: tuple[float, float, float]) -> None:
    """One round of a variant."""
    row = into.setdefault(name, Measured())
    row.p50_ns.append(figures[0])
    row.p999_ns.append(figures[1])
    row.cpu_ns.append(figures[2])


@contextmanager
def instrumented(*, is_off: bool) -> Iterator[Any]:
    """Instrumented, with or without Sentry."""
    tracers = TracerProvider(shutdown_on_exit=False)
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    loggers = LoggerProvider(shutdown_on_exit=False)
    try:
        with ours(tracers, meters, loggers, sentry="off" if is_off else "auto") as handle:
            yield handle
    finally:
        for provider in (tracers, meters, loggers):
            provider.shutdown()


def median_between(values: Sequence[float]) -> str:
    """The median of nanoseconds as microseconds, and the order statistics around it (binomial, normal quantiles)."""
    ordered, count = sorted(values), len(values)
    low = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    around = (float(np.median(ordered)), ordered[low], ordered[count - 1 - low])
    return "{:+.2f} [{:+.2f}, {:+.2f}] µs".format(*(value / 1000 for value in around))


def main() -> int:
    """Measure outside, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.sentry", description="What Sentry adds outside transactions.")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--calls", type=int, default=3_000, help="calls in a block")
    arguments = parser.parse_args()
    (measured,) = measure_sentry(rounds=arguments.rounds, calls=arguments.calls, places=PLACES[:1]).values()
    without = measured[f"otel_mlmon, {RATES[0][0]}"]
    for variant, _ in RATES[1:]:
        found = measured[f"otel_mlmon, {variant}"]
        p50_ns = [a - b for a, b in zip(found.p50_ns, without.p50_ns, strict=True)]
        cpu_ns = [a - b for a, b in zip(found.cpu_ns, without.cpu_ns, strict=True)]
        print(f"{variant}: p50 {median_between(p50_ns)}, CPU {median_between(cpu_ns)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
