from __future__ import annotations

import logging

import pytest

from otel_mlmon.instrumentation.decode.findings import MAX_FINDINGS, ModelFindings
from otel_mlmon.types import ModelKey


def test_a_finding_is_logged_once_and_again_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    findings = ModelFindings()
    with caplog.at_level(logging.INFO, logger="otel_mlmon"):
        for finding in ("logits", "logits", "regression, revised"):
            findings.note_finding("m", "output y", finding)
        findings.note_finding("m", "inputs", "quiet", is_logged=False)
        findings.note_full_vocabulary("m", "colour")
    assert [record.getMessage() for record in caplog.records] == [
        "Model m, output y: logits.",
        "Model m, output y: regression, revised.",
        "Model m, values of colour: more than max_labels, of which some or all are in buckets.",
    ]
    assert findings.list_findings() == {
        "m": {
            "output y": "regression, revised",
            "inputs": "quiet",
            "values of colour": "more than max_labels, of which some or all are in buckets",
        }
    }


def test_what_it_keeps_is_bounded() -> None:
    findings = ModelFindings()
    for number in range(2 * MAX_FINDINGS):
        findings.note_finding(f"m{number}", "labels", "x", is_logged=False)
    assert len(findings.list_findings()) == MAX_FINDINGS


def test_a_description_of_a_misspelt_model_is_said_with_the_name_that_ran(caplog: pytest.LogCaptureFixture) -> None:
    declared = {"fruad": 1, "churn": 1}
    findings = ModelFindings(declared)
    assert findings.list_findings() == {}  # before any model has run nothing can be known
    for _ in range(2):
        findings.note_running_model("fraud")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Model fruad, description: no model of this name has run; did you mean fraud, which has.")
    ]
    assert findings.list_findings() == {
        "fruad": {"description": "no model of this name has run; did you mean fraud, which has"},
        "churn": {"description": "no model of this name has run"},
    }
    declared["late"] = 1
    for name in ("fruad", "churn", "late"):
        findings.note_running_model(name)
    assert findings.list_findings() == {}


def test_a_second_content_under_one_version_is_a_version_of_its_own() -> None:
    findings = ModelFindings()
    first, other = "ab" * 32, "cd" * 32
    versions = [
        (ModelKey("churn", "1"), first), (ModelKey("churn", "1"), other), (ModelKey("churn", "1"), first),
        (ModelKey("churn", "2"), other), (ModelKey("fraud", "1"), other), (ModelKey("churn", "1"), ""),
        (ModelKey("churn", other[:12]), other), (ModelKey("churn", ""), other),
    ]  # fmt: skip
    assert [findings.separate_version(model, digest) for model, digest in versions] == [
        "1", "1+cdcdcdcdcdcd", "1", "2", "1", "1", other[:12], "",
    ]  # fmt: skip
    for number in range(2 * MAX_FINDINGS):
        findings.separate_version(ModelKey(f"m{number}", "1"), first)
    assert findings.separate_version(ModelKey("new", "1"), other) == "1"
    assert findings.separate_version(ModelKey("churn", "1"), other) == "1+cdcdcdcdcdcd"
