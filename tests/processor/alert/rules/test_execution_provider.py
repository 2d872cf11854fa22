from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.message import format_alert
from otel_mlmon.processor.alert.rules.execution_provider import ExecutionProviderRule, ExecutionProviderSection
from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.testing import SimulatedProcessor

MINUTE_NS = 60 * 10**9
CUDA, CPU, TENSORRT = "CUDAExecutionProvider", "CPUExecutionProvider", "TensorrtExecutionProvider"
CONFIGURATION = {"windows": {"pane": "1m", "lateness": "0s", "rolling": "10m"}}


def use(provider: str, first_min: float, last_min: float | None = None, requested: str = "") -> ExecutionProviderUse:
    """Reports between two minutes."""
    last_min = first_min if last_min is None else last_min
    return ExecutionProviderUse(requested, provider, round(first_min * MINUTE_NS), round(last_min * MINUTE_NS))


def judge(*uses: ExecutionProviderUse, **section: Any) -> object:
    return ExecutionProviderRule(ExecutionProviderSection.model_validate(section)).judge_providers(uses)


@pytest.mark.parametrize(
    "uses",
    [
        (),
        (use(CPU, 0, 100),),
        (use(CPU, 0, requested=CUDA),),  # asked for on a machine that never had it
        (use(CUDA, 0, 100),),
        (use(CUDA, 0, 0), use(CPU, 9, 1000)),  # side by side from the start
        (use(CPU, 0, 0), use(CUDA, 60, 60)),  # for the better
        (use(CUDA, 0, 100), use(CPU, 60, 80)),  # back again
        (use(CUDA, 0), use("AcmeExecutionProvider", 60)),
        (use("AcmeExecutionProvider", 0), use(CPU, 60)),
        (use(CUDA, 0), use("ROCMExecutionProvider", 60)),
    ],
)
def test_what_is_no_loss(uses: tuple[ExecutionProviderUse, ...]) -> None:
    assert judge(*uses) == "ok"


@pytest.mark.parametrize(
    ("uses", "better", "lesser", "onset_min", "severity"),
    [
        ((use(CUDA, 0, 5), use(CPU, 60)), "CUDA (NVIDIA GPU)", "CPU", 60, "critical"),
        # one of several processes of a rollout
        ((use(CUDA, 0, 61), use(CPU, 60)), "CUDA (NVIDIA GPU)", "CPU", 60, "critical"),
        ((use(CUDA, 0, 5), use(CPU, 60), use(CPU, 60, requested=CUDA)), "CUDA (NVIDIA GPU)", "CPU", 60, "critical"),
        ((use(TENSORRT, 0), use(CUDA, 60)), "TensorRT (NVIDIA GPU)", "CUDA (NVIDIA GPU)", 60, "warning"),
        ((use(TENSORRT, 0), use(CUDA, 60), use(CPU, 120)), "TensorRT (NVIDIA GPU)", "CPU", 120, "critical"),
        ((use("DmlExecutionProvider", 0), use(CPU, 11)), "DirectML (GPU)", "CPU", 11, "critical"),
        ((use("CANNExecutionProvider", 0), use(CPU, 11)), "CANN", "CPU", 11, "critical"),
    ],
)
def test_a_loss_names_both_providers_and_since_when(
    uses: tuple[ExecutionProviderUse, ...], better: str, lesser: str, onset_min: int, severity: str
) -> None:
    rule = ExecutionProviderRule(ExecutionProviderSection())
    for order in (uses, uses[::-1]):
        cause = rule.judge_providers(order)
        assert isinstance(cause, AlertCause)
        assert (cause.reference, cause.current, cause.onset_ns) == (better, lesser, onset_min * MINUTE_NS)
        assert rule.grade_severity([cause]) == severity


def test_a_provider_that_is_good_enough_is_no_loss() -> None:
    uses = use(TENSORRT, 0), use(CUDA, 60), use(CPU, 120)
    cause = judge(*uses, accept=["CPU*"])
    assert isinstance(cause, AlertCause)
    assert cause.current == "CUDA (NVIDIA GPU)"
    assert judge(*uses, accept=[CPU, CUDA]) == "ok"


def loaded(provider: str, time_ns: int, *, version: str = "1", requested: str = "") -> ExportLogsServiceRequest:
    """The events of a model that was loaded."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.scope.name = semconv.SCOPE
    names: dict[str, dict[str, str]] = {semconv.EVENT_MODEL_LOADED: {}}
    if requested:
        names[semconv.EVENT_PROVIDER_FALLBACK] = {semconv.EXECUTION_PROVIDERS_REQUESTED: requested}
    for name, extra in names.items():
        record = scope.log_records.add(event_name=name, time_unix_nano=time_ns)
        model = {semconv.MODEL_NAME: "search", semconv.MODEL_VERSION: version, semconv.EXECUTION_PROVIDER: provider}
        for key, value in {**model, **extra}.items():
            record.attributes.add(key=key).value.string_value = value
    return request


class Fleet:
    """A model that serves, minute after minute, and is loaded again now and then."""

    def __init__(self, processor: SimulatedProcessor) -> None:
        self.processor = processor

    def serve(self, minutes: int, *, version: str = "1") -> list[tuple[str, str, str]]:
        before = len(self.processor.alerts)
        for _ in range(minutes):
            self.processor.send_counts("search", version=version, labels={"a": 50, "b": 50})
            self.processor.advance(60)
        return [(alert.rule, alert.state.value, alert.severity) for alert in self.processor.alerts[before:]]

    def load(self, provider: str, *, version: str = "1", requested: str = "") -> None:
        self.processor.receive(loaded(provider, self.processor.now_ns, version=version, requested=requested))


@contextmanager
def fleet(**rule: Any) -> Iterator[Fleet]:
    with SimulatedProcessor({**CONFIGURATION, "models": {"*": {"execution_provider": rule}}}) as processor:
        yield Fleet(processor)


FIRES, RESOLVES = ("execution_provider", "firing", "critical"), ("execution_provider", "ok", "critical")


def test_it_fires_once_keeps_firing_across_a_restart_and_ends_when_the_accelerator_is_back() -> None:
    with fleet() as model:
        model.load(CUDA)
        assert model.serve(20) == []
        model.load(CPU, requested=CUDA)
        assert model.serve(2) == [FIRES]
        model.load(CPU, requested=CUDA)
        assert model.serve(20) == []
        model.processor.restart()
        assert model.serve(60) == []
        assert model.processor.rule_state("search", "execution_provider") == "firing"
        model.load(CUDA)
        assert model.serve(2) == [RESOLVES]
        text = format_alert(model.processor.alerts[0])
        assert "  What      execution_provider: CUDA (NVIDIA GPU) → CPU\n" in text
        assert (
            "  How much  CUDA (NVIDIA GPU) was reported from 2026-01-01 00:00:00 UTC to 2026-01-01 00:00:00 UTC" in text
        )
        assert "  In words  CUDA (NVIDIA GPU) was asked for\n" in text
        assert "  Since     2026-01-01 00:20:00 UTC, " in text
        assert "If normal" not in text


def test_it_does_not_end_by_time_alone() -> None:
    with fleet() as model:
        model.load(CUDA)
        assert model.serve(12) == []
        model.load(CPU)
        assert model.serve(1) == [FIRES]
        model.processor.now_ns += 25 * 3600 * 10**9  # beyond limits.stale_after, and only now some traffic again
        assert [change for change in model.serve(3) if change[0] == "execution_provider"] == []


def test_a_version_that_was_on_the_cpu_from_its_start_raises_nothing_and_a_retired_one_ends() -> None:
    with fleet() as model:
        model.load(CUDA)
        assert model.serve(12) == []
        model.load(CPU)
        assert model.serve(1) == [FIRES]
        model.load(CPU, version="2", requested=CUDA)
        changes = model.serve(8, version="2")
        assert [change for change in changes if change[0] == "execution_provider"] == [RESOLVES]
        assert model.processor.alerts[-1].reason.startswith("This version is retired")


def test_a_model_without_predictions_and_a_rule_that_is_off_raise_nothing() -> None:
    with fleet() as model:
        model.load(CUDA)
        model.processor.advance(3600)
        model.load(CPU)
        model.processor.advance(60)
        assert model.processor.alerts == []
    with fleet(enabled=False) as model:
        model.load(CUDA)
        assert model.serve(12) == []
        model.load(CPU)
        assert model.serve(2) == []
