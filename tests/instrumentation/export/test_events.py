from __future__ import annotations

import dataclasses

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity
from otel_mlmon.instrumentation.decode.model_loading import ModelLoad
from otel_mlmon.instrumentation.export.events import EventWriter

LOADED = ModelLoad(
    model=ModelIdentity(name="iris", version="7", provider="CPU", runtime_version="1.2"), is_new=True, ended_ns=5,
    context=Context(), duration_s=0.5, error_type=None, requested=("CUDA", "CPU"), providers=("CPU",), sha256="ab",
    reference="{}", output_kinds="y: labels (integers, one a row)",
)  # fmt: skip
RUNS_ON = {
    "ml.model.name": "iris",
    "ml.model.version": "7",
    "ml.execution_provider": "CPU",
    "ml.execution_providers": "CPU",
    "ml.execution_providers.requested": "CUDA,CPU",
}


def emitted(*loads: ModelLoad) -> list[tuple[str | None, str | None, int | None, dict[str, object]]]:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    events = EventWriter(provider)
    for load in loads:
        events.write_model_event(load, offset_ns=100)
    provider.shutdown()
    records = [found.log_record for found in exporter.get_finished_logs()]
    return [(r.event_name, r.severity_text, r.timestamp, dict(r.attributes or {})) for r in records]


def test_golden_events_of_a_model_that_fell_back(caplog: pytest.LogCaptureFixture) -> None:
    loaded, fallback = emitted(LOADED)
    assert loaded == (
        "ml.model.loaded", "INFO", 105,
        {**RUNS_ON, "ml.runtime.name": "onnxruntime", "ml.runtime.version": "1.2", "ml.model.file.sha256": "ab",
         "ml.model.reference": "{}", "ml.output.kinds": "y: labels (integers, one a row)",
         "ml.model.load.duration": 0.5},
    )  # fmt: skip
    assert fallback == ("ml.execution_provider.fallback", "WARN", 105, RUNS_ON)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "Model iris was asked to run on CUDA and runs on CPU.")
    ]


def test_what_is_not_known_is_not_there() -> None:
    model = dataclasses.replace(LOADED.model, version="")
    bare = dataclasses.replace(
        LOADED, model=model, duration_s=None, requested=(), sha256="", reference="", output_kinds=""
    )
    ((_, _, _, attributes),) = emitted(bare)
    assert attributes == {
        "ml.model.name": "iris",
        "ml.execution_provider": "CPU",
        "ml.execution_providers": "CPU",
        "ml.runtime.name": "onnxruntime",
        "ml.runtime.version": "1.2",
    }


def test_other_providers_are_no_new_model_and_a_failure_is_none(caplog: pytest.LogCaptureFixture) -> None:
    changed = dataclasses.replace(LOADED, is_new=False)
    failed = dataclasses.replace(LOADED, error_type="NoSuchFile")
    assert [name for name, *_ in emitted(changed, failed, changed)] == ["ml.execution_provider.fallback"] * 2
    assert len(caplog.records) == 1


def test_without_a_provider_of_events_the_log_line_stays(caplog: pytest.LogCaptureFixture) -> None:
    events = EventWriter(None)
    events.write_model_event(LOADED, offset_ns=0)
    events.write_model_event(LOADED, offset_ns=0)
    assert len(caplog.records) == 1
