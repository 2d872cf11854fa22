"""Rule `execution_provider`: alerts when a model that ran on an accelerator runs on a lesser execution provider.

Processes report the execution provider when they load a model. What they report within ten minutes is one rollout: a
model that is on an accelerator and on the CPU side by side from the start is meant so. A lesser provider that comes
later is an incident, until the better one is reported again after that rollout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Final

from pydantic import Field

from otel_mlmon.processor.alert.alert import AlertCause, Severity, name_execution_provider
from otel_mlmon.processor.alert.cause import OnsetCounts, format_utc
from otel_mlmon.processor.alert.rules.rule import Judgement, RuleSection
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.providers import ExecutionProviderUse
from otel_mlmon.processor.window.window import StreamWindow

STREAM: Final = "execution_provider"
"""The name that its causes have in place of a stream."""
ROLLOUT_NS: Final = 600 * 10**9
"""Reports that are no further apart belong to one rollout."""
CPU: Final = "CPUExecutionProvider"
_RANKS: Final = {
    CPU: 0,
    **dict.fromkeys(
        (
            "CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider",
            "WebGpuExecutionProvider", "QNNExecutionProvider", "CANNExecutionProvider", "VitisAIExecutionProvider",
        ),
        1,
    ),
    **dict.fromkeys(
        ("TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider", "MIGraphXExecutionProvider"), 2
    ),
}  # fmt: skip
"""The larger the faster; of other providers it is not known. Source: onnxruntime's list of execution providers."""


class ExecutionProviderSection(RuleSection):
    """Alerts when a model lost its accelerator: it runs on a lesser execution provider than before."""

    accept: tuple[str, ...] = Field(
        default=(), description="Execution providers that are good enough, such as CPUExecutionProvider."
    )


@dataclass(frozen=True, slots=True)
class ExecutionProviderRule:
    """Judges by the reports of processes whether a model version lost its accelerator."""

    section: ExecutionProviderSection
    section_type: ClassVar = ExecutionProviderSection
    title: ClassVar = "execution provider"

    def find_detection_policy(self, stream: str) -> DetectionPolicy | None:
        """Returns None for every stream, since this rule judges execution providers only."""

    def judge_stream(self, window: StreamWindow, score: DriftScore, counts: OnsetCounts) -> Judgement:
        """Returns None for every stream, since this rule judges execution providers only."""

    def judge_providers(self, uses: Iterable[ExecutionProviderUse]) -> Judgement:
        """Judges whether a model version that ran on an accelerator runs on a lesser execution provider now.

        Args:
            uses: What was reported of it.
        """
        spans: dict[str, tuple[int, int]] = {}
        requested: dict[str, str] = {}
        for use in uses:
            first_ns, last_ns = spans.get(use.provider, (use.first_ns, use.last_ns))
            spans[use.provider] = (min(first_ns, use.first_ns), max(last_ns, use.last_ns))
            requested[use.provider] = use.requested or requested.get(use.provider, "")
        losses = [
            (-_RANKS[better], _RANKS[lesser], spans[lesser][0], better, lesser)
            for better in spans
            for lesser in spans
            if _RANKS.get(lesser, 9) < _RANKS.get(better, -1)
            and not any(fnmatchcase(lesser, pattern) for pattern in self.section.accept)
            and spans[lesser][0] - spans[better][0] > ROLLOUT_NS
            and spans[better][1] - spans[lesser][1] <= ROLLOUT_NS
        ]
        if not losses:
            return "ok"
        *_, first_ns, better, lesser = min(losses)
        before, now = name_execution_provider(better), name_execution_provider(lesser)
        used = f"{before} was reported from {format_utc(spans[better][0])} to {format_utc(spans[better][1])}"
        return AlertCause(
            stream=STREAM,
            value=float(_RANKS[better] - _RANKS[lesser]),
            bound=0.0,
            reference=before,
            current=now,
            current_count=0,
            reference_count=0,
            onset_ns=first_ns,
            details=(f"{name_execution_provider(requested[lesser])} was asked for",) if requested[lesser] else (),
            summary=f"{used}, {now} since",
        )

    def grade_severity(self, causes: Iterable[AlertCause]) -> Severity:
        """Returns `critical` where a model runs on the CPU now, which usually takes many times as long."""
        return "critical" if any(cause.current == name_execution_provider(CPU) for cause in causes) else "warning"
