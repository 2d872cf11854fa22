"""Observed predictions, from what is copied of them to what is aggregated."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_mlmon
from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.batch import PIECE_CALLS, take_call_batches
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.observations import EXPECTED, MAX_LABELS, make_call_decoder
from otel_mlmon.instrumentation.decode.predictions import Predictions
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, OBSERVED_INPUTS, OBSERVED_OUTPUTS, Plan, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.values import copy_readable_values
from otel_mlmon.instrumentation.settings import ModelOptions
from otel_mlmon.internal_events import JOURNAL
from tests.support.calls import session

OUTCOME = ("label", "confidence", "value", "scores")


def decoded(
    calls: Sequence[Mapping[str, Any] | None],
    options: ModelOptions | None = None,
    *,
    max_features: int = 100,
    findings: ModelFindings | None = None,
) -> Predictions:
    """Calls of one model, each by what `observe()` was given; None of one that failed."""
    plan = Plan(
        session=session(), operation="observe", inputs=OBSERVED_INPUTS, outputs=OBSERVED_OUTPUTS, is_observed=True
    )
    queue = CallQueue(
        fields=FIELDS, max_records=100_000, max_bytes=1 << 40, attend=lambda _: None, weigh=estimate_call_bytes
    )
    for call in calls:
        if call is None:
            queue.offer((plan, 1, 4, None, (), (), "ValueError"), 1)
            continue
        outcome: Any = tuple(call.get(name) for name in OUTCOME)
        features, copies, unreadable = copy_readable_values(call.get("features"), outcome)
        sides = (features, unreadable), copies
        queue.offer((plan, 1, 4, None, *sides, None), 1)
    (batch,), _ = take_call_batches(queue.take_calls, len(calls), is_suppressed=lambda _: False, pause=lambda: None)
    decoder = make_call_decoder(
        plan, options=lambda _: options or ModelOptions(), max_features=max_features, findings=findings
    )
    return decoder.decode_batch(batch)


def labels_of(predictions: Predictions) -> list[tuple[int, str]]:
    labels = predictions.labels
    return [(call, labels.table[code]) for call, code in zip(labels.calls.tolist(), labels.codes.tolist(), strict=True)]


def test_labels_without_end_are_bounded_besides_the_declared_ones() -> None:
    labels = [f"user {number}" for number in range(MAX_LABELS + 1)]
    predictions = decoded([{"label": label} for label in [*labels, "stay"]], ModelOptions(labels=["stay"]))
    # The declared one is one of the fifty.
    expected = [*labels[: MAX_LABELS - 1], "_OTHER", "_OTHER", "stay"]
    assert [label for _, label in labels_of(predictions)] == expected


def confidences_of(predictions: Predictions) -> list[tuple[int, float]]:
    return list(zip(predictions.confidences.calls.tolist(), predictions.confidences.values.tolist(), strict=True))


def test_calls_of_every_form_make_one_batch() -> None:
    predictions = decoded(
        [
            {"label": "a", "confidence": 0.5},
            None,
            {"label": ["a", None, "b"], "confidence": [0.25, 0.75, None], "value": [1, 2, 3]},
            {"scores": [0.1, 0.9]},
            {"scores": [[0.1, 0.9], [0.8, 0.2]], "label": ["c", "d"]},
            {"value": 2.5},
            {"features": {"age": [1.0, 2.0]}},
            {},
        ]
    )
    assert labels_of(predictions) == [(0, "a"), (2, "a"), (2, "b"), (3, "1"), (4, "c"), (4, "d")]
    assert confidences_of(predictions) == [(0, 0.5), (2, 0.25), (2, 0.75), (3, 0.9), (4, 0.9), (4, 0.8)]
    assert predictions.values[""].tolist() == [1.0, 2.0, 3.0, 2.5]
    assert predictions.batch_sizes.tolist() == [1, 0, 3, 1, 2, 1, 2, 0]
    assert predictions.duration_ns.tolist() == [3] * 8
    assert list(predictions.errors) == [None, "ValueError", *[None] * 6]
    assert (predictions.operation, predictions.model.name) == ("observe", "m")


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("yes", "yes"),
        (True, "bee"),
        (1, "bee"),
        (0.0, "ant"),
        (7, "7"),
        (2.5, "2.5"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "_OTHER"),
    ],
)
def test_a_label_is_its_text_or_the_class_of_its_number(label: object, text: str) -> None:
    assert labels_of(decoded([{"label": label}], ModelOptions(labels=["ant", "bee"]))) == [(0, text)]


def test_confidences_outside_of_0_and_1_are_dropped_and_counted() -> None:
    predictions = decoded([{"label": "a", "confidence": value} for value in (0, 1, -0.1, 93, math.nan, "0.5", 10**400)])
    assert confidences_of(predictions) == [(0, 0.0), (1, 1.0)]
    assert JOURNAL.read_totals(semconv.VALUES_DROPPED.name) == {(("reason", "confidence_out_of_range"),): 5}


def test_values_that_are_no_finite_numbers_are_left() -> None:
    predictions = decoded([{"value": value} for value in (1.5, math.nan, math.inf, "text", 10**400, -2)])
    assert predictions.values[""].tolist() == [1.5, -2.0]
    assert predictions.batch_sizes.tolist() == [1] * 6


def test_what_cannot_be_read_is_counted_and_one_warning_an_argument(caplog: pytest.LogCaptureFixture) -> None:
    findings = ModelFindings()
    calls: list[dict[str, Any] | None] = [
        {"label": ["a", object(), None], "value": [1.5, "text", 2.5]},
        None,
        {"label": object(), "confidence": 0.5, "features": 3},
        {"features": {"x": [1.0, object(), 3.0]}, "scores": "text"},
    ]
    predictions = decoded(calls * 2, findings=findings)
    assert labels_of(predictions) == [(0, "a"), (4, "a")]
    # The second and third row of the first call have no label.
    assert predictions.heads[""].uncounted.tolist() == [2, 0, 0, 0] * 2
    assert confidences_of(predictions) == [(2, 0.5), (6, 0.5)]
    assert predictions.values[""].tolist() == [1.5, 2.5] * 2
    assert predictions.inputs.features["x"].tolist() == [1.0, 3.0] * 2
    assert predictions.inputs.missing == {"x": 2}
    assert predictions.batch_sizes.tolist() == [3, 0, 1, 3] * 2
    assert predictions.duration_ns.tolist() == [3] * 8
    assert JOURNAL.read_totals(semconv.VALUES_DROPPED.name) == {(("reason", "unreadable"),): 10}
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        f"Model m, {argument} of observe(): cannot be read and is left out of calls, which are recorded without it; "
        f"{expected} is expected (otel_mlmon.values.dropped counts what is left out)."
        for argument, expected in (
            ("label", "a text or a number, or a sequence of one a row"),
            ("features", "a mapping of names to values"),
            ("scores", "numbers of shape (k,) or (n, k)"),
            ("value", "a number, or a sequence of one a row"),
        )
    ]
    assert set(findings.list_findings()["m"]) == {
        f"{name} of observe()" for name in ("label", "features", "scores", "value")
    }


def test_every_argument_has_a_word_for_what_can_be_read() -> None:
    arguments = inspect.signature(otel_mlmon.observe).parameters
    assert list(EXPECTED) == [name for name in arguments if name != "model"]


def test_features_are_numbers_or_categories_by_their_first_value() -> None:
    rows = [
        {"age": None, "plan": "gold", "vip": True, "code": 3, "empty": None},
        {"age": 41, "plan": "", "vip": False, "code": 4.0, "empty": None},
        {"age": "text", "plan": 7, "vip": None, "code": math.nan, "empty": None},
        {"age": math.inf, "plan": "gold", "vip": True, "code": 3},
    ]
    inputs = decoded([{"features": row} for row in rows], ModelOptions(categorical=["code"], keep_text=["plan"])).inputs
    assert {name: values.tolist() for name, values in inputs.features.items()} == {"age": [41.0]}
    assert inputs.categories == {
        "plan": {"gold": 2, "7": 1}, "vip": {"1": 2, "0": 1}, "code": {"3": 2, "4": 1},
    }  # fmt: skip
    assert inputs.missing == {"age": 3, "plan": 1, "vip": 1, "code": 1, "empty": 3}
    assert inputs.samples == 4


@pytest.mark.parametrize(("max_features", "names"), [(0, []), (2, ["f0", "f1"]), (3, ["f0", "f1", "f2"])])
def test_the_first_features_are_profiled(max_features: int, names: list[str]) -> None:
    findings = ModelFindings()
    inputs = decoded(
        [{"features": {"f0": 1, "f1": 2}}, {"features": {"f2": 3}}], max_features=max_features, findings=findings
    ).inputs
    assert list(inputs.features) == names
    assert bool(findings.list_findings()) is (max_features == 2)


def test_the_developers_own_function_reads_scores() -> None:
    def read(outputs: dict[str, Any]) -> tuple[object, object]:
        return ["sure" if outputs["scores"][0, 0] > 0.5 else "not"], None

    predictions = decoded([{"scores": [0.9, 0.1]}, {"label": "a"}], ModelOptions(output_kind=read))
    assert labels_of(predictions) == [(0, "sure"), (1, "a")]


@settings(deadline=None)
@given(
    calls=st.lists(
        st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {},
                optional={
                    "label": st.one_of(st.sampled_from("abc"), st.integers(0, 9), st.lists(st.sampled_from("abc"))),
                    "confidence": st.one_of(st.floats(0, 1), st.lists(st.floats(0, 1))),
                    "features": st.dictionaries(st.sampled_from("xyz"), st.floats(-9, 9)),
                },
            ),
        ),
        min_size=1,
        max_size=3 * PIECE_CALLS,
    )
)
def test_nothing_is_lost_or_moved_between_calls(calls: list[dict[str, Any] | None]) -> None:
    def rows(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [] if value is None else [value]

    predictions = decoded(calls)
    given_calls = [call or {} for call in calls]
    assert labels_of(predictions) == [
        (at, str(row)) for at, call in enumerate(given_calls) for row in rows(call.get("label"))
    ]
    assert confidences_of(predictions) == [
        (at, row) for at, call in enumerate(given_calls) for row in rows(call.get("confidence"))
    ]
    expected: dict[str, list[float]] = {}
    for call in given_calls:
        for name, value in call.get("features", {}).items():
            expected.setdefault(name, []).append(value)
    assert {name: values.tolist() for name, values in predictions.inputs.features.items()} == expected
    assert Counter(error is None for error in predictions.errors) == Counter(call is not None for call in calls)


@pytest.mark.parametrize("calls", [PIECE_CALLS - 1, PIECE_CALLS, PIECE_CALLS + 1, 5 * PIECE_CALLS + 3])
def test_more_calls_than_are_taken_at_a_time(calls: int) -> None:
    predictions = decoded([{"label": str(index % 7), "features": {"x": index}} for index in range(calls)])
    assert labels_of(predictions) == [(index, str(index % 7)) for index in range(calls)]
    assert np.array_equal(predictions.inputs.features["x"], np.arange(calls))
