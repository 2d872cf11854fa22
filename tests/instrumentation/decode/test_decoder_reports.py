"""What a decoder tells beside predictions: that a model runs, of which kind its outputs are, and what is doubted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.decoder import (
    MAX_LISTED,
    DecoderCache,
    TensorDecoder,
    make_model_vocabularies,
)
from otel_mlmon.instrumentation.decode.findings import UNMATCHED, ModelFindings
from otel_mlmon.instrumentation.decode.output_reports import OutputReport
from otel_mlmon.instrumentation.runtime.call import Plan
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.vocabulary import TextBuckets
from tests.support.calls import batch_of, copy_calls

ROWS = np.array([[0.25, 0.75]])


def make_decoder(plan: Plan, options: ModelOptions, findings: ModelFindings) -> TensorDecoder:
    return TensorDecoder(plan, options=lambda _: options, max_features=9, findings=findings)


def test_a_model_that_has_a_decoder_has_run() -> None:
    ((plan, *_),) = copy_calls([({}, {"p": ROWS})])
    findings = ModelFindings(declared=["m", "other"])
    assert findings.list_findings() == {}
    make_decoder(plan, ModelOptions(), findings)
    assert findings.list_findings()["other"] == {"description": UNMATCHED}
    assert "description" not in findings.list_findings().get("m", {})


def test_outputs_that_a_function_reads_are_reported_so_from_the_beginning() -> None:
    ((plan, *_),) = copy_calls([({}, {"p": ROWS, "q": ROWS})])
    findings = ModelFindings()
    make_decoder(plan, ModelOptions(output_kind=lambda outputs: ([], [])), findings)
    report = OutputReport(
        kind="function",
        reason="ModelOptions.output_kind is a function of all outputs",
        graph=plan.session.graph().state,
    )
    assert findings.outputs.list_reports() == {"m/1": {"p": report, "q": report}}


def test_outputs_are_reported_by_what_their_values_show() -> None:
    records = copy_calls([({}, {"p": ROWS})])
    findings = ModelFindings()
    make_decoder(records[0][0], ModelOptions(), findings).decode_batch(batch_of(records))
    ((model, reports),) = findings.outputs.list_reports().items()
    assert (model, list(reports), reports["p"].kind) == ("m/1", ["p"], "probabilities")
    assert reports["p"].graph == records[0][0].session.graph().state


def test_declared_kinds_of_outputs_that_are_not_there_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    ((plan, *_),) = copy_calls([({}, {"scores": ROWS, "boxes": ROWS})])
    findings = ModelFindings()
    with caplog.at_level(logging.INFO, logger="otel_mlmon"):
        make_decoder(plan, ModelOptions(output_kind={"scored": "probabilities", "boxes": "none"}), findings)
    (record,) = caplog.records
    finding = "declared, but the outputs are scores, boxes. Did you mean scores"
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"Model m, output scored: {finding}."
    assert findings.list_findings()["m"]["output scored"] == finding


def test_a_warning_lists_some_of_many_outputs() -> None:
    ((plan, *_),) = copy_calls([({}, {f"out{number}": ROWS for number in range(MAX_LISTED + 2)})])
    findings = ModelFindings()
    make_decoder(plan, ModelOptions(output_kind={"x": "none"}), findings)
    listed = ", ".join(f"out{number}" for number in range(MAX_LISTED))
    assert findings.list_findings()["m"]["output x"] == f"declared, but the outputs are {listed}"


def doubts_of(outputs: Mapping[str, Any], caplog: pytest.LogCaptureFixture, *, batches: int = 2) -> list[str]:
    """Returns the warnings of a model without a file, whose kinds are assumed from its values."""
    records = copy_calls([({}, outputs)])
    decoder = make_decoder(records[0][0], ModelOptions(), ModelFindings())
    with caplog.at_level(logging.WARNING, logger="otel_mlmon"):
        for _ in range(batches):
            decoder.decode_batch(batch_of(records))
    return [record.getMessage() for record in caplog.records]


def test_a_kind_that_is_assumed_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    assert doubts_of({"y": np.array([[3.0, -1.0]])}, caplog) == [
        "Model m, output y: unknown kind, timed only (set ModelOptions.output_kind), assumed, since its file and name "
        "say no more than 2 numbers without bounds or names. If it is something else: "
        "otel_mlmon.instrument(models={'m': ModelOptions(output_kind={'y': ...})})"
    ]


def test_a_kind_that_is_certain_is_not(caplog: pytest.LogCaptureFixture) -> None:
    assert doubts_of({"probabilities": ROWS}, caplog) == []


def test_names_are_limited_by_the_options_of_their_model() -> None:
    options = {
        "a": ModelOptions(text_key="k", categories={"colour": ["red", "blue", "green"]}),
        "b": ModelOptions(),
    }
    full: list[tuple[str, str]] = []
    vocabularies = make_model_vocabularies(2, options.__getitem__, on_full=lambda *names: full.append(names))
    counts = {"red": 5, "blue": 4, "green": 3}
    bucket = TextBuckets(key="k", model="a").assign_bucket("green")
    assert vocabularies.limit_names("a", "", "colour", counts) == {"red": 5, "blue": 4, bucket: 3}
    assert full == [("a", "colour")]
    for model, key in (("a", "k"), ("b", "")):
        buckets = TextBuckets(key=key, model=model)
        labels = {f"label {number}": 10 for number in range(40)}
        admitted = vocabularies.limit_names(model, "", "", labels)
        assert sum(admitted.values()) == 400
        bucketed = [name for name in admitted if name not in labels]
        assert bucketed
        assert set(bucketed) <= {buckets.assign_bucket(label) for label in labels}
    assert full == [("a", "colour"), ("a", ""), ("b", "")]


def test_a_decoder_is_found_once_its_plan_had_a_batch() -> None:
    first, second = (copy_calls([({}, {"p": ROWS})]) for _ in range(2))
    made: list[TensorDecoder] = []

    def make(plan: Plan) -> TensorDecoder:
        made.append(make_decoder(plan, ModelOptions(), ModelFindings()))
        return made[-1]

    decoders = DecoderCache(make, on_new=lambda _: None)
    plans: Sequence[Plan] = (first[0][0], second[0][0])
    assert [decoders.find_decoder(plan) for plan in plans] == [None, None]
    decoders.decode_batch(batch_of(second))
    assert [decoders.find_decoder(plan) for plan in plans] == [None, made[0]]
    assert len(made) == 1
