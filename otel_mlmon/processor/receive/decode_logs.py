"""From an OTLP logs request to what it says of models: the event `ml.model.loaded`.

All other records are taken and not used. Source: opentelemetry-proto, logs.proto, `LogRecord.event_name`.
Choice: senders older than that field put the name into the attribute `event.name`; both are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_mlmon import semconv
from otel_mlmon.processor.receive.attributes import Attributes, attributes_of, first_text
from otel_mlmon.processor.receive.data_point import ModelLoaded
from otel_mlmon.types import ModelKey

EVENT_NAME_ATTRIBUTE: Final = "event.name"

MAX_REFERENCE_CHARACTERS: Final = 8 * 2**20
"""A reference that is longer is rejected: it is kept, and read again at every start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedLogs:
    """What a request held: `points + unused` is the number of its records."""

    signal: ClassVar[str] = "logs"
    observations: tuple[ModelLoaded, ...]
    unused: int
    """Records of other events, and those that a processor sent."""
    faults: dict[str, int]
    """Rejected records by reason."""
    ignored: int = 0
    loop_dropped: int = 0

    @property
    def accepted(self) -> int:
        """Records that say something of a model."""
        return len(self.observations)

    @property
    def rejected(self) -> int:
        """The sum of `faults`."""
        return sum(self.faults.values())

    @property
    def points(self) -> int:
        """Those that count."""
        return self.accepted + self.rejected


def decode_logs(request: ExportLogsServiceRequest) -> DecodedLogs:
    """Every record of `request`, looked at.

    Runs on: any thread.
    """
    loaded: list[ModelLoaded] = []
    faults: Counter[str] = Counter()
    unused = 0
    for resource_logs in request.resource_logs:
        resource = attributes_of(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            is_own = scope_logs.scope.name == semconv.PROCESSOR_SCOPE
            for record in scope_logs.log_records:
                found = None if is_own else _loaded(record, resource)
                if isinstance(found, ModelLoaded):
                    loaded.append(found)
                elif found is None:
                    unused += 1
                else:
                    faults[found] += 1
    return DecodedLogs(observations=tuple(loaded), unused=unused, faults=dict(faults))


def _loaded(record: LogRecord, resource: Attributes) -> ModelLoaded | str | None:
    """What a record says; the reason, if it is rejected; None if it is another event."""
    if record.event_name not in ("", semconv.EVENT_MODEL_LOADED):
        return None
    attributes = attributes_of(record.attributes)
    if (record.event_name or attributes.get(EVENT_NAME_ATTRIBUTE)) != semconv.EVENT_MODEL_LOADED:
        return None
    name = first_text(semconv.MODEL_NAME, attributes, resource) or first_text("service.name", resource)
    reference = first_text(semconv.MODEL_REFERENCE, attributes)
    if not name:
        return "no_model_name"
    if len(reference) > MAX_REFERENCE_CHARACTERS:
        return "too_large"
    return ModelLoaded(
        model=ModelKey(name, first_text(semconv.MODEL_VERSION, attributes, resource)), reference=reference
    )
