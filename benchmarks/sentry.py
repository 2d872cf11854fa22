"""Measures what Sentry costs a call, by hand and by `otel_mlmon`, with nothing sent over a network.

`python -m benchmarks.sentry` prints how much more a call outside any transaction costs than without Sentry: the median
of the differences within a round, and between which of them it lies, 95 times of 100. With `--endings` it prints what
the end of a sampled transaction takes beside the same spans made by hand, in pairs that take turns.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as `benchmarks` does

import argparse
import contextlib
import functools
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
import sentry_sdk
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from sentry_sdk.transport import Transport

from benchmarks.hot_path import CASES, Measured, Run, block, nothing, ours
from tests.support import models

CALLS_IN_A_TRANSACTION = 100

ENDINGS: Final = (
    (CASES[0].model, CASES[0].shape, "", 1),
    (CASES[0].model, CASES[0].shape, "", 10),
    (models.labelled, (1, 3), " of a label and probabilities", 1),
    (models.text_labels, (1, 3), " of a label and ZipMap's probabilities", 1),
)
"""Model, shape of its input, words for its outputs, and calls of the transactions whose ends are compared."""

ENDING_AIM: Final = 1.3
"""The end of a transaction at p50, beside the same spans made by hand."""


class NoTransport(Transport):
    """Takes envelopes and forgets them, but the spans of the latest transaction."""

    latest_spans: list[dict[str, Any]]

    def capture_envelope(self, envelope: Any) -> None:
        """Remembers the spans."""
        event = envelope.get_transaction_event()
        if event is not None:
            self.latest_spans = event["spans"]


@contextlib.contextmanager
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
    """Monitors a call by hand as a page of Sentry's documentation says."""

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


def make_session(
    model: Callable[[], bytes] = CASES[0].model, shape: tuple[int, ...] = CASES[0].shape
) -> tuple[onnxruntime.InferenceSession, Run, dict[str, Any]]:
    """Makes a session, its method `run` as it is before it is instrumented, warm, and an input of this shape."""
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model(), session_options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    bare = functools.partial(type(session).run, session, None, feed)
    for _ in range(200):
        bare()
    return session, bare, feed


def measure_sentry(
    *, rounds: int, calls: int, places: Sequence[tuple[str, bool | None]] = PLACES
) -> dict[str, dict[str, Measured]]:
    """Every variant at every place, round after round."""
    session, bare, feed = make_session()
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


class Ending(NamedTuple):
    """Holds what the ends of transactions took on the thread that ended them."""

    wall_ns: list[int]
    cpu_ns: list[int]


def measure_endings(
    model: Callable[[], bytes], shape: tuple[int, ...], *, transactions: int, calls: int
) -> dict[str, Ending]:
    """Ends sampled transactions of so many calls, by hand and by `otel_mlmon` in turn, with the same spans."""
    session, bare, feed = make_session(model, shape)
    endings = {"by hand": Ending([], []), "otel_mlmon": Ending([], [])}
    with sentry(1.0), instrumented(is_off=False) as handle:
        run = functools.partial(session.run, None, feed)
        for _ in range(20):
            end_transaction(run, calls)
        spans = end_transaction(run, calls)[2]
        handle.flush(timeout_s=10)
        variants: dict[str, Run] = {"by hand": copy_by_hand(bare, spans[0]["data"]), "otel_mlmon": run}
        for _, (name, variant) in itertools.product(range(transactions), variants.items()):
            wall_ns, cpu_ns, sent = end_transaction(variant, calls)
            if len(sent) != calls:
                raise RuntimeError(f"{name}: {len(sent)} spans of {calls} calls were sent")
            endings[name].wall_ns.append(wall_ns)
            endings[name].cpu_ns.append(cpu_ns)
    return endings


def end_transaction(run: Run, calls: int) -> tuple[int, int, list[dict[str, Any]]]:
    """Returns the time and CPU that the end of a transaction of so many calls took, in ns, and its spans."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(sentry_sdk.start_transaction(name="request", op="http.server", sampled=True))
        for _ in range(calls):
            run()
        started_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        stack.close()
        cpu_ns, ended_ns = time.thread_time_ns() - cpu_ns, time.perf_counter_ns()
    transport = sentry_sdk.get_client().transport
    if not isinstance(transport, NoTransport):
        raise TypeError(f"{transport} keeps no spans")
    return ended_ns - started_ns, cpu_ns, transport.latest_spans


def copy_by_hand(run: Run, data: Mapping[str, Any]) -> Run:
    """Makes a function that runs within a span of these data."""

    def traced() -> Any:
        with sentry_sdk.start_span(op="ml.predict", name="predict bench") as span:
            outputs = run()
            for name, value in data.items():
                span.set_data(name, value)
        return outputs

    return traced


def ending_aims(*, transactions: int) -> list[str]:
    """Sentences on the ends of sampled transactions, one each of `ENDINGS`."""
    sentences = []
    for model, shape, outputs, calls in ENDINGS:
        measured = measure_endings(model, shape, transactions=transactions, calls=calls)
        hand, own = measured["by hand"], measured["otel_mlmon"]

        def ratio(part: Sequence[int], whole: Sequence[int], quantile: float) -> str:
            return f"{np.quantile(part, quantile) / np.quantile(whole, quantile):.2f}"

        sentences.append(
            f"- Sentry, the end of a sampled transaction of {calls} call{'s' if calls > 1 else ''}{outputs}: it takes "
            f"{np.median(own.wall_ns) / 1000:.0f} µs, {ratio(own.wall_ns, hand.wall_ns, 0.5)} times as long as with "
            f"the same spans made by hand (aim: {ENDING_AIM}), at p95 {ratio(own.wall_ns, hand.wall_ns, 0.95)} times, "
            f"and {ratio(own.cpu_ns, hand.cpu_ns, 0.5)} times the CPU."
        )
    return sentences


def note(into: dict[str, Measured], name: str, figures: tuple[float, float, float]) -> None:
    """One round of a variant."""
    row = into.setdefault(name, Measured())
    row.p50_ns.append(figures[0])
    row.p999_ns.append(figures[1])
    row.cpu_ns.append(figures[2])


@contextlib.contextmanager
def instrumented(*, is_off: bool) -> Iterator[Any]:
    """Monitors a call by `otel_mlmon`, with or without Sentry."""
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
    """Measures outside of transactions too, and prints the figures."""
    parser = argparse.ArgumentParser(prog="benchmarks.sentry", description="What Sentry adds outside transactions.")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--calls", type=int, default=3_000, help="calls in a block")
    parser.add_argument("--endings", type=int, metavar="N", help="compare the ends of N transactions of each kind only")
    arguments = parser.parse_args()
    if arguments.endings:
        print(*ending_aims(transactions=arguments.endings), sep="\n")
        return 0
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
