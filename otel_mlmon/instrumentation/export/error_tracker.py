"""The Protocol of an error tracker such as Sentry, and one that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from opentelemetry.context import Context

from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.call_sampler import CallPriorities, Samples
from otel_mlmon.types import Bools

ContextReader: TypeAlias = Callable[[None], object]
"""Reads the host's context around a call: OpenTelemetry's or None, or a pair of it and the error tracker's own."""

SpanIds: TypeAlias = "tuple[int, int]"
"""Trace id and span id as OpenTelemetry writes them."""

RelatedSpans: TypeAlias = "Callable[[int], SpanIds | None]"
"""Looks up the error tracker's span that a call, by its position in the batch, belongs to; None if it has none."""


class ErrorTracker(Protocol):
    """The Protocol of an error tracker, such as Sentry, that gets inference calls beside OpenTelemetry.

    Runs on: the function that `find_context_reader` returns on the host's threads; all else on the worker thread.
    """

    @property
    def mode(self) -> str:
        """How inference calls reach the error tracker: `off`, `waiting`, or the name of a protocol."""

    @property
    def is_active(self) -> bool:
        """Whether the error tracker takes inference calls at present."""

    def find_context_reader(self) -> ContextReader:
        """Returns the function that reads the current trace context of the host around each inference call."""

    def adopt_client(self) -> None:
        """Starts to use a client of the error tracker that the application has initialised meanwhile."""

    def store_child_spans(self, predictions: Predictions, contexts: Sequence[object]) -> None:
        """Stores the inference calls that ran inside a transaction, until the transaction is sent."""

    def find_related_spans(self, predictions: Predictions, contexts: Sequence[object]) -> RelatedSpans | None:
        """Returns the error tracker's span that each inference call was inside; None if no call was in one."""

    def find_transaction_candidates(self, predictions: Predictions, contexts: Sequence[object], /) -> Bools:
        """Returns which inference calls of a batch may become transactions, being outside any; shape (n,)."""

    def send_calls(
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
        """Sends the chosen inference calls that ran outside any transaction.

        Args:
            predictions: The calls.
            priorities: Their confidences.
            samples: The calls outside any transaction that were chosen.
            contexts: The error tracker's own context around each call; empty if no call had one.
            span_contexts: The context of OpenTelemetry's span, by call, of the calls that have one.
            related_spans: The result of `find_related_spans` for the same batch.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """

    def export_spans(self, provider: Any, *, is_own: bool) -> None:
        """Exports the OpenTelemetry spans of a tracer provider to the error tracker, if its mode asks for that."""

    def flush_calls(self, timeout_s: float) -> None:
        """Sends all queued inference calls to the error tracker within a time limit."""

    def close_tracker(self, timeout_s: float, /, *, is_exit: bool = False) -> None:
        """Sends what is queued, and undoes all changes made to the application's error-tracker client.

        Args:
            timeout_s: How long that may take.
            is_exit: Whether the process ends, where the client flushes by itself: both share the time.
        """

    def reset_calls(self) -> None:
        """Discards the inference calls of the parent process, in a forked child."""


class NullErrorTracker:
    """An error tracker that does nothing, for applications without one.

    Args:
        read_context: Reads OpenTelemetry's context.
        mode: Reported by `status()`.
    """

    is_active = False

    def __init__(self, read_context: ContextReader, mode: str = "off") -> None:
        self.mode: str = mode
        self._read_context = read_context

    def find_context_reader(self) -> ContextReader:
        """Returns the function that reads OpenTelemetry's trace context only, without an error tracker's."""
        return self._read_context

    def adopt_client(self) -> None:
        """Does nothing, since there is no client of an error tracker."""

    def store_child_spans(self, predictions: Predictions, contexts: Sequence[object]) -> None:
        """Does nothing, since without an error tracker there are no transactions."""

    def find_related_spans(self, *_: object) -> None:
        """Returns None, since no inference call is inside an error tracker's span."""

    def find_transaction_candidates(self, predictions: Predictions, _contexts: Sequence[object]) -> Bools:
        """Returns that no inference call may become a transaction."""
        return np.zeros(len(predictions.errors), dtype=bool)

    def send_calls(self, *_: object, **__: object) -> None:
        """Does nothing, since there is no error tracker to send calls to."""

    def export_spans(self, provider: Any, *, is_own: bool) -> None:
        """Does nothing, since there is no error tracker to export spans to."""

    def flush_calls(self, timeout_s: float) -> None:
        """Does nothing, since nothing is queued for an error tracker."""

    def close_tracker(self, _timeout_s: float, /, **_: object) -> None:
        """Sets the mode of the error tracker to `off`, and does nothing else."""
        self.mode = "off"

    def reset_calls(self) -> None:
        """Does nothing, since there is no state of inference calls."""
