"""The attributes by which a span or an event describes one call of a batch."""

from __future__ import annotations

import numpy as np

from otel_mlmon.instrumentation.decode.predictions import (
    PredictedLabels,
    build_call_attributes,
    build_span_attributes,
    describe_call,
)
from otel_mlmon.instrumentation.export.call_sampler import prioritize_calls
from tests.support.calls import make_predictions


def test_the_attributes_of_a_call_are_what_is_known_of_it() -> None:
    labels = PredictedLabels(codes=np.array([1, 0, 1, 0]), calls=np.array([0, 1, 1, 3]), table=["cat", "dog"])
    predictions = make_predictions(
        [[0.25], [0.25, 0.75], [], [0.5]], errors=[None, None, "ValueError", None], labels=labels,
        batch_sizes=[1, 2, 0, 1],
    )  # fmt: skip
    of_all = prioritize_calls(predictions)
    model = {"ml.model.name": "m", "ml.model.version": "2"}
    assert [build_call_attributes(describe_call(predictions, of_all, call)) for call in range(4)] == [
        {**model, "ml.inference.duration": 0.5, "ml.batch.size": 1, "ml.prediction.label": "dog",
         "ml.prediction.confidence": 0.25},
        {**model, "ml.inference.duration": 1.0, "ml.batch.size": 2, "ml.prediction.confidence": 0.5,
         "ml.prediction.confidence.min": 0.25},
        {**model, "ml.inference.duration": 1.5, "error.type": "ValueError"},
        {**model, "ml.inference.duration": 2.0, "ml.batch.size": 1, "ml.prediction.label": "cat",
         "ml.prediction.confidence": 0.5},
    ]  # fmt: skip
    assert build_span_attributes(describe_call(predictions, of_all, 2)) == {
        **model, "ml.inference.duration": 1.5, "error.type": "ValueError", "ml.runtime.name": "onnxruntime",
        "ml.runtime.version": "1.2", "ml.execution_provider": "CPU", "ml.operation.name": "run",
    }  # fmt: skip


def test_a_row_without_a_label_has_none_and_a_model_without_a_version_has_none() -> None:
    labels = PredictedLabels(codes=np.array([0]), calls=np.array([1]), table=["cat"])
    predictions = make_predictions([[0.5], [0.5], [0.5]], labels=labels, version="")
    actual = [
        build_call_attributes(describe_call(predictions, prioritize_calls(predictions), call)) for call in range(3)
    ]
    assert ["ml.prediction.label" in attributes for attributes in actual] == [False, True, False]
    assert not any("ml.model.version" in attributes for attributes in actual)
