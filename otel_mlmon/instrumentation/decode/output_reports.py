"""Reports of which kind each output of a model is and why: as its file says, then as its values show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from otel_mlmon.instrumentation.decode.custom_outputs import OutputFunction
from otel_mlmon.instrumentation.decode.model_identity import read_class_names
from otel_mlmon.instrumentation.decode.output_kind import KindDecision, expect_output_kind, is_object_detector
from otel_mlmon.instrumentation.runtime.call import SessionInfo
from otel_mlmon.instrumentation.runtime.model_graph import GraphState
from otel_mlmon.types import ModelKey, OutputKind

MAX_MODELS: Final = 256
"""Models whose outputs are reported at most."""

MAX_OUTPUTS: Final = 64
"""Outputs of a model that are reported at most."""

UNDECIDED: Final = "decided by the first rows"
DECLARED: Final = "declared"
BY_FUNCTION: Final = KindDecision(None, "ModelOptions.output_kind is a function of all outputs")

_INTEGERS: Final = frozenset({"label", "top_k_labels", "counts"})
"""Roles of outputs that hold no scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReport:
    """Reports of which kind one output is, why, and how far the model's file could be read."""

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
    """Holds the latest report on each output, by model.

    Runs on: any thread.
    """

    def __init__(self) -> None:
        self._models: dict[ModelKey, dict[str, OutputReport]] = {}

    def note_report(self, model: ModelKey, output: str, report: OutputReport) -> None:
        """Records of which kind an output is, as its values have shown or the developer has declared."""
        outputs = self._find_model_reports(model)
        if output in outputs or len(outputs) < MAX_OUTPUTS:
            outputs[output] = report

    def expect_reports(
        self,
        model: ModelKey,
        session: SessionInfo,
        declared_kind: OutputKind | Mapping[str, OutputKind] | OutputFunction | None,
    ) -> Mapping[str, OutputReport]:
        """Returns the reports on all outputs that a model's file and options allow before any values.

        Runs on: the worker thread; reads a file.
        """
        expected = report_expected_outputs(session, declared_kind)
        outputs = self._find_model_reports(model) if expected else {}
        for name, report in expected.items():
            outputs.setdefault(name, report)
        return expected

    def list_reports(self) -> dict[str, dict[str, OutputReport]]:
        """Returns all reports on outputs, by `<model>/<version>` (or `<model>` without version) and output."""
        return {
            f"{model.name}/{model.version}" if model.version else model.name: dict(outputs)
            for model, outputs in list(self._models.items())
        }

    def _find_model_reports(self, model: ModelKey) -> dict[str, OutputReport]:
        if model not in self._models and len(self._models) >= MAX_MODELS:
            self._models.pop(next(iter(self._models)), None)
        return self._models.setdefault(model, {})


def report_expected_outputs(
    session: SessionInfo, declared_kind: OutputKind | Mapping[str, OutputKind] | OutputFunction | None = None
) -> dict[str, OutputReport]:
    """Reports on the outputs of a model before it has run, from its file and its options.

    Runs on: the worker thread; reads a file.

    Args:
        session: The session.
        declared_kind: The option `output_kind` of the model.
    """
    graph = session.graph()
    names = read_class_names(session.metadata)
    is_detector = is_object_detector(graph.outputs)
    scores = next((name for name, origin in graph.outputs.items() if origin.role not in _INTEGERS), "")
    has_label = {name for name, origin in graph.outputs.items() if origin.role == "label"}
    reports: dict[str, OutputReport] = {}
    for name, origin in list(graph.outputs.items())[:MAX_OUTPUTS]:
        kind = declared_kind.get(name) if isinstance(declared_kind, Mapping) else declared_kind
        if callable(kind):
            reports[name] = make_output_report(BY_FUNCTION, graph.state)
        elif kind is not None and (isinstance(declared_kind, Mapping) or name == scores):
            reports[name] = make_output_report(KindDecision(kind, DECLARED), graph.state)
        else:
            decision = expect_output_kind(
                name,
                origin,
                class_names=names,
                producer=graph.producer,
                is_detector=is_detector,
                has_labels=bool(has_label - {name}),
            )
            reports[name] = make_output_report(decision, graph.state)
    return reports


def make_output_report(decision: KindDecision, graph: GraphState) -> OutputReport:
    """Makes the report on one output from the decision on its kind."""
    kind = "function" if decision is BY_FUNCTION else decision.kind or UNDECIDED
    return OutputReport(kind=kind, reason=decision.reason, graph=graph)


def format_output_kinds(reports: Mapping[str, OutputReport]) -> str:
    """Formats the kinds of a model's outputs as the attribute of the event `ml.model.loaded`."""
    return "; ".join(f"{name}: {report}" for name, report in reports.items())
