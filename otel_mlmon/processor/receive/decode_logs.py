"""Decodes OTLP logs requests into the events about loaded models; all other log records are counted and ignored.

Source: opentelemetry-proto, logs.proto, `LogRecord.event_name`.
Choice: senders older than that field put the event's name into the attribute `event.name`; both are read.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_mlmon import semconv
from otel_mlmon.processor.receive.attributes import (
    Attributes,
    PointError,
    check_name_lengths,
    read_attributes,
    read_first_text,
    read_model_key,
    read_service_key,
)
from otel_mlmon.processor.receive.data_point import DecodedRequest, ModelLoaded, ProviderFallback

EVENT_NAME_ATTRIBUTE: Final = "event.name"

MAX_REFERENCE_CHARACTERS: Final = 8 * 2**20
"""A longer reference is rejected: references are stored, and read again at every start."""

MAX_PROVIDER_CHARACTERS: Final = 128
"""A longer name of an execution provider is cut."""

_EVENTS: Final = (semconv.EVENT_MODEL_LOADED, semconv.EVENT_PROVIDER_FALLBACK)


def decode_logs(request: ExportLogsServiceRequest) -> DecodedRequest:
    """Decodes every log record of an OTLP logs request into an event about a loaded model, or counts it.

    Runs on: any thread.
    """
    events: list[ModelLoaded | ProviderFallback] = []
    faults: Counter[str] = Counter()
    unused = 0
    for resource_logs in request.resource_logs:
        resource = read_attributes(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            is_own = scope_logs.scope.name == semconv.PROCESSOR_SCOPE
            for record in scope_logs.log_records:
                event = None if is_own else _decode_log_record(record, resource)
                if event is None:
                    unused += 1
                elif isinstance(event, str):
                    faults[event] += 1
                else:
                    events.append(event)
    return DecodedRequest(items=tuple(events), unused=unused, faults=dict(faults))


def count_log_records(request: ExportLogsServiceRequest) -> int:
    """Counts the log records of an OTLP logs request without looking at them."""
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def _decode_log_record(record: LogRecord, resource: Attributes) -> ModelLoaded | ProviderFallback | str | None:
    """Decodes a log record to an event; returns the reason if it is rejected, None for any other event."""
    if record.event_name not in ("", *_EVENTS):
        return None
    attributes = read_attributes(record.attributes)
    name = record.event_name or attributes.get(EVENT_NAME_ATTRIBUTE)
    if name not in _EVENTS:
        return None
    model = read_model_key(attributes, resource, default=read_service_key(resource))
    if not model.name:
        return "no_model_name"
    try:
        check_name_lengths(*model)
    except PointError as error:
        return str(error)
    provider = _read_execution_provider(semconv.EXECUTION_PROVIDER, attributes)
    time_ns = record.time_unix_nano or record.observed_time_unix_nano
    if name == semconv.EVENT_PROVIDER_FALLBACK:
        requested = _read_execution_provider(semconv.EXECUTION_PROVIDERS_REQUESTED, attributes)
        if not (provider and requested):
            return "no_provider"
        return ProviderFallback(model=model, requested=requested, provider=provider, time_ns=time_ns)
    reference = read_first_text(semconv.MODEL_REFERENCE, attributes)
    if len(reference) > MAX_REFERENCE_CHARACTERS:
        return "too_large"
    return ModelLoaded(model=model, reference=reference, provider=provider, time_ns=time_ns)


def _read_execution_provider(key: str, attributes: Attributes) -> str:
    """Reads the first of a comma-separated list of execution providers, cut to a bounded length."""
    return read_first_text(key, attributes).partition(",")[0].strip()[:MAX_PROVIDER_CHARACTERS]
