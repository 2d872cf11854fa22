from __future__ import annotations

from collections.abc import Mapping

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_mlmon.processor.receive.data_point import DecodedRequest, ModelLoaded, ProviderFallback
from otel_mlmon.processor.receive.decode_logs import MAX_PROVIDER_CHARACTERS, MAX_REFERENCE_CHARACTERS, decode_logs
from otel_mlmon.types import ModelKey

FRAUD = {"ml.model.name": "fraud", "ml.model.version": "7", "ml.model.reference": "{}"}


def request(
    attributes: Mapping[str, str],
    *,
    event: str = "ml.model.loaded",
    scope: str = "otel_mlmon",
    resource: Mapping[str, str] | None = None,
) -> ExportLogsServiceRequest:
    """One log record."""
    message = ExportLogsServiceRequest()
    resource_logs = message.resource_logs.add()
    for key, value in (resource or {}).items():
        resource_logs.resource.attributes.add(key=key).value.string_value = value
    scope_logs = resource_logs.scope_logs.add()
    scope_logs.scope.name = scope
    record = scope_logs.log_records.add(event_name=event)
    for key, value in attributes.items():
        record.attributes.add(key=key).value.string_value = value
    return message


def test_a_model_that_was_loaded_says_its_name_version_and_reference() -> None:
    decoded = decode_logs(request(FRAUD))
    assert decoded.items == (ModelLoaded(model=ModelKey("fraud", "7"), reference="{}"),)
    assert (decoded.points, decoded.accepted, decoded.unused, decoded.rejected) == (1, 1, 0, 0)


PROVIDERS = {
    "ml.execution_provider": "CPUExecutionProvider",
    "ml.execution_providers": "CPUExecutionProvider",
    "ml.execution_providers.requested": "CUDAExecutionProvider,CPUExecutionProvider",
}


def test_the_execution_provider_of_a_loaded_model_and_when() -> None:
    message = request({**FRAUD, **PROVIDERS})
    message.resource_logs[0].scope_logs[0].log_records[0].observed_time_unix_nano = 5
    (first,) = decode_logs(message).items
    message.resource_logs[0].scope_logs[0].log_records[0].time_unix_nano = 3
    (second,) = decode_logs(message).items
    model = ModelKey("fraud", "7")
    assert [first, second] == [
        ModelLoaded(model=model, reference="{}", provider="CPUExecutionProvider", time_ns=time_ns) for time_ns in (5, 3)
    ]


def test_a_fallback_says_from_which_provider_to_which() -> None:
    found = decode_logs(request({**FRAUD, **PROVIDERS}, event="ml.execution_provider.fallback"))
    fallback = ProviderFallback(
        model=ModelKey("fraud", "7"), requested="CUDAExecutionProvider", provider="CPUExecutionProvider"
    )
    assert (found.items, found.accepted, found.unused) == ((fallback,), 1, 0)
    named = {**PROVIDERS, "event.name": "ml.execution_provider.fallback", "ml.model.name": "fraud"}
    assert decode_logs(request(named, event="")).accepted == 1


@pytest.mark.parametrize("name", ["ml.execution_provider", "ml.execution_providers.requested"])
def test_a_fallback_without_a_provider_is_rejected_and_a_long_name_is_cut(name: str) -> None:
    event = "ml.execution_provider.fallback"
    assert decode_logs(request({**FRAUD, **PROVIDERS, name: " , "}, event=event)).faults == {"no_provider": 1}
    (long,) = decode_logs(request({**FRAUD, **PROVIDERS, name: "x" * 10_000}, event=event)).items
    assert isinstance(long, ProviderFallback)
    assert "x" * MAX_PROVIDER_CHARACTERS in (long.provider, long.requested)


@pytest.mark.parametrize("key", ["ml.model.name", "ml.model.version", "deployment.environment.name"])
def test_a_model_whose_name_is_too_long_is_rejected(key: str) -> None:
    assert decode_logs(request({**FRAUD, key: "x" * 2_048})).accepted == 1
    assert decode_logs(request({**FRAUD, key: "x" * 2_049})).faults == {"name_too_long": 1}


def test_the_name_of_the_event_may_be_an_attribute() -> None:
    assert decode_logs(request({**FRAUD, "event.name": "ml.model.loaded"}, event="")).accepted == 1


@pytest.mark.parametrize(
    ("attributes", "event", "scope"),
    [
        (FRAUD, "ml.prediction", "otel_mlmon"),
        (FRAUD, "", "otel_mlmon"),
        ({**FRAUD, "event.name": "ml.model.loaded"}, "ml.prediction", "otel_mlmon"),
        (FRAUD, "ml.model.loaded", "otel_mlmon.processor"),
    ],
)
def test_other_records_are_not_used(attributes: Mapping[str, str], event: str, scope: str) -> None:
    decoded = decode_logs(request(attributes, event=event, scope=scope))
    assert (decoded.items, decoded.unused, decoded.rejected, decoded.points) == ((), 1, 0, 0)


def loaded_by(decoded: DecodedRequest) -> ModelLoaded:
    """The one item of a request."""
    (item,) = decoded.items
    assert isinstance(item, ModelLoaded)
    return item


def test_the_resource_speaks_where_the_record_does_not() -> None:
    loaded = decode_logs(request({}, resource={"ml.model.name": "fraud", "ml.model.version": "7"}))
    assert loaded.items == (ModelLoaded(model=ModelKey("fraud", "7"), reference=""),)
    service = decode_logs(request({}, resource={"service.name": "shop"}))
    assert loaded_by(service).model == ModelKey("shop", "")


def test_the_environment_is_read_from_the_record_and_else_from_the_resource() -> None:
    staging = {"deployment.environment.name": "staging"}
    assert loaded_by(decode_logs(request(FRAUD, resource=staging))).model == ModelKey("fraud", "7", "staging")
    both = request({**FRAUD, **staging}, resource={"deployment.environment.name": "production"})
    assert loaded_by(decode_logs(both)).model == ModelKey("fraud", "7", "staging")


def test_without_a_name_or_too_large_it_is_rejected_with_the_reason() -> None:
    large = {**FRAUD, "ml.model.reference": "x" * (MAX_REFERENCE_CHARACTERS + 1)}
    message = request({"ml.model.version": "7"})
    message.MergeFrom(request(large))
    message.MergeFrom(request(FRAUD))
    decoded = decode_logs(message)
    assert decoded.faults == {"no_model_name": 1, "too_large": 1}
    assert (decoded.accepted, decoded.rejected, decoded.points) == (1, 2, 3)
