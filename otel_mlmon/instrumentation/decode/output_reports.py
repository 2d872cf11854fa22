"""Reports the kind of each output of each model, with the reason: expected from the file, then shown by the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from otel_mlmon.instrumentation.decode.custom_outputs import OutputFunction
from otel_mlmon.instrumentation.decode.model_identity import class_names
from otel_mlmon.instrumentation.decode.output_kind import Decision, expect_kind, is_detection
from otel_mlmon.instrumentation.runtime.call import SessionInfo
from otel_mlmon.instrumentation.runtime.model_graph import GraphState
from otel_mlmon.types import ModelKey, OutputKind

MAX_MODELS: Final = 256
"""Models whose outputs are reported at most."""

MAX_OUTPUTS: Final = 64
"""Outputs of a model that are reported at most."""

UNDECIDED: Final = "decided by the first rows"
DECLARED: Final = "declared"
BY_FUNCTION: Final = Decision(None, "ModelOptions.output_kind is a function of all outputs")

_INTEGERS: Final = frozenset({"label", "top_k_labels", "counts"})
"""Roles of outputs that hold no scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReport:
    """Represents the kind of one output, why it has it, and how far the model's file could be read."""

    kind: str
    """A value of `ModelOptions.output_kind`; `none` if only the time is measured; `function` if a function of the
    application reads it; `decided by the first rows` until they came."""
    reason: str
    graph: GraphState
    """Whether the model's file says how the output is computed, `read`, or why that is not known: `ort_format`,
    `unreadable`, `missing`, `too_large` or `not_attempted`."""

    def __str__(self) -> str:
        return f"{self.kind} ({self.reason})"


class OutputReports:
    """Holds the latest report of each output, by model.

    Runs on: any thread.
    """

    def __init__(self) -> None:
        self._models: dict[ModelKey, dict[str, OutputReport]] = {}

    def note(self, model: ModelKey, output: str, report: OutputReport) -> None:
        """Notes what the rows of an output showed, or what was declared of it."""
        outputs = self._outputs_of(model)
        if output in outputs or len(outputs) < MAX_OUTPUTS:
            outputs[output] = report

    def expect(
        self,
        model: ModelKey,
        session: SessionInfo,
        declared_kind: OutputKind | Mapping[str, OutputKind] | OutputFunction | None,
    ) -> Mapping[str, OutputReport]:
        """Returns what a model's file and its options say of its outputs; noted where its rows said nothing so far.

        Runs on: the worker thread; reads a file.
        """
        expected = expect_outputs(session, declared_kind)
        outputs = self._outputs_of(model) if expected else {}
        for name, report in expected.items():
            outputs.setdefault(name, report)
        return expected

    def all(self) -> dict[str, dict[str, OutputReport]]:
        """Returns the reports by `<model>/<version>`, or `<model>` where there is no version, and output."""
        return {
            f"{model.name}/{model.version}" if model.version else model.name: dict(outputs)
            for model, outputs in list(self._models.items())
        }

    def _outputs_of(self, model: ModelKey) -> dict[str, OutputReport]:
        if model not in self._models and len(self._models) >= MAX_MODELS:
            self._models.pop(next(iter(self._models)), None)
        return self._models.setdefault(model, {})


def expect_outputs(
    session: SessionInfo, declared_kind: OutputKind | Mapping[str, OutputKind] | OutputFunction | None = None
) -> dict[str, OutputReport]:
    """Reports the outputs of a model before it has run, from its file and its options; empty if the file names none.

    Runs on: the worker thread; reads a file.

    Args:
        session: The session.
        declared_kind: The option `output_kind` of the model.
    """
    graph = session.graph()
    names = class_names(session.metadata)
    is_detector = is_detection(graph.outputs)
    scores = next((name for name, origin in graph.outputs.items() if origin.role not in _INTEGERS), "")
    has_label = {name for name, origin in graph.outputs.items() if origin.role == "label"}
    reports: dict[str, OutputReport] = {}
    for name, origin in list(graph.outputs.items())[:MAX_OUTPUTS]:
        kind = declared_kind.get(name) if isinstance(declared_kind, Mapping) else declared_kind
        if callable(kind):
            reports[name] = report_output(BY_FUNCTION, graph.state)
        elif kind is not None and (isinstance(declared_kind, Mapping) or name == scores):
            reports[name] = report_output(Decision(kind, DECLARED), graph.state)
        else:
            decision = expect_kind(
                name,
                origin,
                class_names=names,
                producer=graph.producer,
                is_detector=is_detector,
                has_labels=bool(has_label - {name}),
            )
            reports[name] = report_output(decision, graph.state)
    return reports


def report_output(decision: Decision, graph: GraphState) -> OutputReport:
    """Reports a decision on the kind of an output."""
    kind = "function" if decision is BY_FUNCTION else decision.kind or UNDECIDED
    return OutputReport(kind=kind, reason=decision.reason, graph=graph)


def format_outputs(reports: Mapping[str, OutputReport]) -> str:
    """Formats the outputs of a model as the event `ml.model.loaded` carries them."""
    return "; ".join(f"{name}: {report}" for name, report in reports.items())
