"""`ml.inference.exception`: a failed call as an error of its own, by its class; a message may carry the host's data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.export.sampling import Interest, Limiter
from otel_mlmon.version import __version__


class Exceptions:
    """Writes one event a failed call.

    Runs on: the thread behind.

    Args:
        provider: Whose logger is used.
        limiter: How many a second.
    """

    def __init__(self, provider: LoggerProvider, *, limiter: Limiter) -> None:
        self._logger = provider.get_logger(semconv.SCOPE, __version__)
        self._limiter = limiter

    def emit(self, predictions: Predictions, found: Interest, spans: Mapping[int, Context], *, offset_ns: int) -> None:
        """Write the events of a batch, each in the context of its span, or of its call where it has none."""
        failed = np.flatnonzero(found.failed)
        model = predictions.model
        version = {semconv.MODEL_VERSION: model.version} if model.version else {}
        for call in failed[: self._limiter.grant(failed.size)].tolist():
            ended_ns = int(predictions.started_ns[call] + predictions.duration_ns[call])
            self._logger.emit(
                timestamp=ended_ns + offset_ns,
                observed_timestamp=ended_ns + offset_ns,
                context=spans.get(call) or cast("Context", predictions.contexts[call]),
                severity_number=SeverityNumber.ERROR,
                severity_text="ERROR",
                event_name=semconv.EVENT_INFERENCE_EXCEPTION,
                attributes={
                    semconv.MODEL_NAME: model.name,
                    **version,
                    semconv.OPERATION_NAME: predictions.operation,
                    semconv.EXCEPTION_TYPE: str(predictions.errors[call]),
                },
            )
