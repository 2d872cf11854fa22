"""The Protocol of an error tracker such as Sentry, and a null implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from opentelemetry.context import Context

from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.call_sampler import Samples
from otel_mlmon.instrumentation.export.sampling import CallPriorities
from otel_mlmon.types import Bools

ContextReader: TypeAlias = Callable[[None], object]
"""Reads the host's context around a call: OpenTelemetry's or None, or a pair of it and the error tracker's own."""

SpanIds: TypeAlias = "tuple[int, int]"
"""Trace id and span id as OpenTelemetry writes them."""

RelatedSpans: TypeAlias = "Callable[[int], SpanIds | None]"
"""Looks up the error tracker's span that a call, by its position in the batch, belongs to; None if it has none."""


class ErrorTracker(Protocol):
    """Sends inference calls to an error tracker, beside OpenTelemetry, and links its errors to them.

    Runs on: the function that `context_reader` returns on the host's threads; all else on the worker thread.
    """

    @property
    def mode(self) -> str:
        """How calls reach the error tracker, shown by `status()`: `off`, `waiting`, or the name of a protocol."""

    @property
    def is_active(self) -> bool:
        """Whether it takes calls; as long as not, no method that takes or sends them needs to be called."""

    def context_reader(self) -> ContextReader:
        """Returns the function that reads the host's context around each call."""

    def adopt_client(self) -> None:
        """Starts to use the client that the application has initialised since the last call."""

    def store_child_spans(self, predictions: Predictions, contexts: Sequence[object]) -> None:
        """Stores the calls that ran inside a transaction, until that transaction is sent."""

    def related_spans(self, predictions: Predictions, contexts: Sequence[object]) -> RelatedSpans | None:
        """Finds the error tracker's span that each call of a batch belongs to; None if no call has one."""

    def find_candidates(self, predictions: Predictions, contexts: Sequence[object], /) -> Bools:
        """Finds the calls of a batch, shape (n,), that may become transactions: those outside any."""

    def emit(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        samples: Samples,
        contexts: Sequence[object],
        span_contexts: Mapping[int, Context],
        related_spans: RelatedSpans | None,
        *,
        offset_ns: int,
    ) -> None:
        """Sends the chosen calls that ran outside any transaction.

        Args:
            predictions: The calls.
            priorities: Their confidences.
            samples: The calls outside any transaction that were chosen.
            contexts: The error tracker's own context around each call; empty if no call had one.
            span_contexts: The context of OpenTelemetry's span, by call, of the calls that have one.
            related_spans: The result of `related_spans` for the same batch.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """

    def export_spans(self, provider: Any, *, is_own: bool) -> None:
        """Exports OpenTelemetry's spans of `provider` to the error tracker, where its mode asks for that."""

    def flush(self, timeout_s: float) -> None:
        """Sends what is queued, within the time."""

    def close(self, timeout_s: float, /, *, is_exit: bool = False) -> None:
        """Sends what is queued and undoes every change made to the application's client.

        Args:
            timeout_s: How long that may take.
            is_exit: Whether the process ends, where the client flushes by itself: both share the time.
        """

    def reset(self) -> None:
        """Discards all state of calls, in a forked child."""


class NullErrorTracker:
    """Implements `ErrorTracker` where none is used: does nothing.

    Args:
        read_context: Reads OpenTelemetry's context.
        mode: Reported by `status()`.
    """

    is_active = False

    def __init__(self, read_context: ContextReader, mode: str = "off") -> None:
        self.mode: str = mode
        self._read_context = read_context

    def context_reader(self) -> ContextReader:
        """Returns the reader of OpenTelemetry's context alone."""
        return self._read_context

    def adopt_client(self) -> None:
        """Does nothing."""

    def store_child_spans(self, predictions: Predictions, contexts: Sequence[object]) -> None:
        """Does nothing."""

    def related_spans(self, *_: object) -> None:
        """Relates no call to any span."""

    def find_candidates(self, predictions: Predictions, _contexts: Sequence[object]) -> Bools:
        """Finds none."""
        return np.zeros(len(predictions.errors), dtype=bool)

    def emit(self, *_: object, **__: object) -> None:
        """Does nothing."""

    def export_spans(self, provider: Any, *, is_own: bool) -> None:
        """Does nothing."""

    def flush(self, timeout_s: float) -> None:
        """Does nothing."""

    def close(self, _timeout_s: float, /, **_: object) -> None:
        """Does nothing but switch its mode to `off`."""
        self.mode = "off"

    def reset(self) -> None:
        """Does nothing."""
