"""The prediction log: `ml.prediction` events, rate-limited, failed and unsure calls first. Never an input."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.sampling import Interest, Limiter, attributes_of, choose
from otel_mlmon.instrumentation.queue.worker import give_way
from otel_mlmon.version import __version__


class Events:
    """Writes events.

    Runs on: the thread behind.

    Args:
        provider: Whose logger is used.
        limiter: How many a second.
        rng: Our own source of randomness.
        new_id: Makes a prediction's id.
    """

    def __init__(
        self,
        provider: LoggerProvider,
        *,
        limiter: Limiter,
        rng: random.Random,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._logger = provider.get_logger(semconv.SCOPE, __version__)
        self._limiter = limiter
        self._rng = rng
        self._new_id = new_id

    def emit(self, predictions: Predictions, found: Interest, spans: Mapping[int, Context], *, offset_ns: int) -> None:
        """Write the events of a batch, each in the context of its span, or of its call where it has none."""
        for call in choose(np.arange(len(predictions.errors)), found, self._limiter, self._rng):
            ended_ns = int(predictions.started_ns[call] + predictions.duration_ns[call])
            self._logger.emit(
                timestamp=ended_ns + offset_ns,
                observed_timestamp=ended_ns + offset_ns,
                context=spans.get(call) or cast("Context", predictions.contexts[call]),
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                event_name=semconv.EVENT_PREDICTION,
                attributes={
                    **attributes_of(predictions, found, call),
                    semconv.PREDICTION_ID: self._new_id(),
                },
            )
            give_way()
