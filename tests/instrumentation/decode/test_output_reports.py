from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from otel_mlmon.instrumentation.decode.output_reports import (
    MAX_MODELS,
    MAX_OUTPUTS,
    UNDECIDED,
    OutputReport,
    OutputReports,
    format_output_kinds,
    report_expected_outputs,
)
from otel_mlmon.instrumentation.runtime.call import SessionInfo
from otel_mlmon.instrumentation.runtime.model_graph import LazyModelGraph, ModelGraph, OutputOrigin
from otel_mlmon.types import ModelKey

LABEL = OutputOrigin(role="label", operator="ArgMax")
SCORES = OutputOrigin(role="probabilities", operator="Softmax", axis=1, rank=2)
NUMBER = OutputOrigin(role="linear", operator="Gemm", rank=2)
CLASSIFIER = {"label": LABEL, "p": SCORES}


def session_of(outputs: Mapping[str, OutputOrigin], state: Any = "read") -> SessionInfo:
    return SessionInfo(
        model_name="m", path="", graph_name="", metadata={}, provider="P", runtime_version="1",
        graph=LazyModelGraph(lambda: ModelGraph(state=state, outputs=outputs)),
    )  # fmt: skip


def report(kind: str, reason: str = "r") -> OutputReport:
    return OutputReport(kind=kind, reason=reason, graph="read")


LABELS = report("labels", "the class of the greatest score, by its operator ArgMax")
PROBABILITIES = report("probabilities", "normalised along its classes, by its operator Softmax")
BY_FUNCTION = report("function", "ModelOptions.output_kind is a function of all outputs")
DETECTOR = report("none", "an output of a detector, by the names of the outputs")


@pytest.mark.parametrize(
    ("outputs", "declared", "expected"),
    [
        (CLASSIFIER, None, {"label": LABELS, "p": PROBABILITIES}),
        (CLASSIFIER, "logits", {"label": LABELS, "p": report("logits", "declared")}),
        (CLASSIFIER, {"label": "none"}, {"label": report("none", "declared"), "p": PROBABILITIES}),
        (CLASSIFIER, lambda outputs: outputs, {"label": BY_FUNCTION, "p": BY_FUNCTION}),
        ({"boxes": OutputOrigin(), "p": SCORES}, None, {"boxes": DETECTOR, "p": DETECTOR}),
        ({"label": LABEL, "y": NUMBER}, None, {"label": LABELS, "y": report("none", "one number beside labels")}),
        ({"y": NUMBER}, None, {"y": report(UNDECIDED, "no row shows its kind yet")}),
        ({}, None, {}),
    ],
)
def test_outputs_are_expected_from_the_options_then_from_the_file(
    outputs: Mapping[str, OutputOrigin], declared: Any, expected: dict[str, OutputReport]
) -> None:
    assert report_expected_outputs(session_of(outputs), declared) == expected


def test_outputs_in_one_text() -> None:
    assert format_output_kinds({"a": report("labels", "x"), "b": report("none", "y")}) == "a: labels (x); b: none (y)"
    assert format_output_kinds({}) == ""


def test_what_rows_showed_is_not_replaced_by_what_the_file_says_of_a_later_session() -> None:
    reports, key = OutputReports(), ModelKey("m", "1")
    assert reports.expect_reports(key, session_of(CLASSIFIER), None) == {"label": LABELS, "p": PROBABILITIES}
    reports.note_report(key, "p", report("none", "rows contradict it"))
    reports.expect_reports(key, session_of(CLASSIFIER), None)
    reports.expect_reports(ModelKey("silent"), session_of({}, "unreadable"), None)
    reports.note_report(ModelKey("bare"), "y", report("labels"))
    assert reports.list_reports() == {
        "m/1": {"label": LABELS, "p": report("none", "rows contradict it")},
        "bare": {"y": report("labels")},
    }


def test_what_is_kept_is_bounded_and_the_latest_models_stay() -> None:
    reports = OutputReports()
    for number in range(2 * MAX_MODELS):
        reports.note_report(ModelKey(f"m{number}"), "y", report("labels"))
    for number in range(2 * MAX_OUTPUTS):
        reports.note_report(ModelKey("wide"), f"y{number}", report("labels"))
    held = reports.list_reports()
    assert (len(held), len(held["wide"]), next(iter(held))) == (MAX_MODELS, MAX_OUTPUTS, f"m{MAX_MODELS + 1}")
