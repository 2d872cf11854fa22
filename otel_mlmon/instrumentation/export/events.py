"""Writes OpenTelemetry events (named log records) of predictions, failed calls and loaded models; never inputs."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Final, cast

from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.model_loading import ModelLoad
from otel_mlmon.instrumentation.decode.predictions import Attributes, Predictions, build_call_attributes, describe_call
from otel_mlmon.instrumentation.export.call_sampler import CallPriorities, Samples, build_sampling_attributes
from otel_mlmon.instrumentation.export.spans import read_otel_context
from otel_mlmon.instrumentation.queue.call_queue import yield_interpreter
from otel_mlmon.version import __version__

MAX_LOGGED_FALLBACKS: Final = 1024
"""The largest number of execution-provider fallbacks remembered, so that each is logged once."""

_LOG: Final = logging.getLogger("otel_mlmon")


class EventWriter:
    """Writes OpenTelemetry events of predictions, failed inference calls and loaded models.

    Runs on: the worker thread.

    Args:
        provider: Whose logger is used; None where the host switched events off, which leaves the log line of a
            fallback.
        new_id: Makes a prediction's id.
    """

    def __init__(
        self,
        provider: LoggerProvider | None,
        *,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._logger = provider.get_logger(semconv.SCOPE, __version__) if provider else None
        self._new_id = new_id
        self._logged_fallbacks: set[tuple[str, str, str]] = set()

    def write_prediction_events(
        self,
        predictions: Predictions,
        priorities: CallPriorities,
        samples: Samples,
        span_contexts: Mapping[int, Context],
        *,
        offset_ns: int,
    ) -> None:
        """Writes an event `ml.prediction` for each chosen inference call of a batch.

        Args:
            predictions: The calls.
            priorities: Their confidences.
            samples: The calls that were chosen.
            span_contexts: The context of the span, by call, of the calls that have one; others take the call's own.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        if self._logger is None:
            return
        for call, sample in samples.items():
            attributes = build_call_attributes(
                describe_call(predictions, priorities, call)
            ) | build_sampling_attributes(sample)
            attributes[semconv.PREDICTION_ID] = self._new_id()
            self._write_call_event(semconv.EVENT_PREDICTION, predictions, call, attributes, span_contexts, offset_ns)
            yield_interpreter()

    def write_exception_events(
        self,
        predictions: Predictions,
        samples: Samples,
        span_contexts: Mapping[int, Context],
        *,
        offset_ns: int,
    ) -> None:
        """Writes an event `ml.inference.exception` for each chosen inference call that failed.

        It carries the exception's type and not its message, which may hold the host's data.
        """
        if self._logger is None:
            return
        model = predictions.model
        version = {semconv.MODEL_VERSION: model.version} if model.version else {}
        for call, sample in samples.items():
            attributes: Attributes = {
                semconv.MODEL_NAME: model.name,
                **version,
                semconv.OPERATION_NAME: predictions.operation,
                semconv.EXCEPTION_TYPE: str(predictions.errors[call]),
                **build_sampling_attributes(sample),
            }
            self._write_call_event(
                semconv.EVENT_INFERENCE_EXCEPTION, predictions, call, attributes, span_contexts, offset_ns
            )

    def write_model_event(self, load: ModelLoad, *, offset_ns: int) -> None:
        """Writes the event `ml.model.loaded`, and another one if a fallback execution provider runs the model.

        Args:
            load: A model in a session. One that failed to load has no event: its host has the exception.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        if load.error_type is not None:
            return
        time_ns, context = load.ended_ns + offset_ns, read_otel_context(load.context)
        if load.is_new:
            self._write_event(
                semconv.EVENT_MODEL_LOADED, SeverityNumber.INFO, _build_load_attributes(load), time_ns, context
            )
        if load.has_fallen_back:
            self._log_fallback(load)
            attributes = _build_provider_attributes(load)
            self._write_event(semconv.EVENT_PROVIDER_FALLBACK, SeverityNumber.WARN, attributes, time_ns, context)

    def _log_fallback(self, load: ModelLoad) -> None:
        fallback = (load.model.name, load.requested[0], load.providers[0])
        if fallback not in self._logged_fallbacks and len(self._logged_fallbacks) < MAX_LOGGED_FALLBACKS:
            self._logged_fallbacks.add(fallback)
            _LOG.warning("Model %s was asked to run on %s and runs on %s.", *fallback)

    def _write_call_event(
        self,
        name: str,
        predictions: Predictions,
        call: int,
        attributes: Attributes,
        span_contexts: Mapping[int, Context],
        offset_ns: int,
    ) -> None:
        severity = SeverityNumber.INFO if name == semconv.EVENT_PREDICTION else SeverityNumber.ERROR
        ended_ns = int(predictions.started_ns[call] + predictions.duration_ns[call])
        context = span_contexts.get(call) or predictions.contexts[call]
        self._write_event(name, severity, attributes, ended_ns + offset_ns, context)

    def _write_event(
        self, name: str, severity: SeverityNumber, attributes: Attributes, time_ns: int, context: object
    ) -> None:
        if self._logger is not None:
            self._logger.emit(
                timestamp=time_ns,
                observed_timestamp=time_ns,
                context=cast("Context", context),
                severity_number=severity,
                severity_text=severity.name,
                event_name=name,
                attributes=attributes,
            )


def _build_load_attributes(load: ModelLoad) -> Attributes:
    attributes: Attributes = {
        **_build_provider_attributes(load),
        **load.model.runtime_attributes,
        semconv.MODEL_FILE_SHA256: load.sha256,
        semconv.MODEL_REFERENCE: load.reference,
        semconv.OUTPUT_KINDS: load.output_kinds,
    }
    if load.duration_s is not None:
        attributes[semconv.MODEL_LOAD_DURATION] = load.duration_s
    return _drop_empty_attributes(attributes)


def _build_provider_attributes(load: ModelLoad) -> Attributes:
    """Builds the attributes with the names of a model's execution providers, as comma-separated text."""
    return _drop_empty_attributes(
        {
            semconv.MODEL_NAME: load.model.name,
            semconv.MODEL_VERSION: load.model.version,
            semconv.EXECUTION_PROVIDER: load.model.provider,
            semconv.EXECUTION_PROVIDERS: ",".join(load.providers),
            semconv.EXECUTION_PROVIDERS_REQUESTED: ",".join(load.requested),
        }
    )


def _drop_empty_attributes(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value != ""}
