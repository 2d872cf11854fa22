"""Names of streams, and what kind of stream one of an output is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon import semconv, streams

HEADS = (semconv.STREAM_LABEL, semconv.STREAM_CONFIDENCE, semconv.STREAM_VALUE)


@given(st.sampled_from(HEADS), st.text(max_size=20))
def test_the_stream_of_an_output_is_of_the_kind_of_that_of_an_only_head(stream: str, output: str) -> None:
    name = streams.name_head_stream(stream, output)
    assert streams.find_stream_family(name) == stream
    assert (name == stream) is (output == "")


@given(st.text(max_size=20))
def test_scores_of_items_are_confidences(output: str) -> None:
    assert streams.find_stream_family(streams.name_item_stream(output)) == semconv.STREAM_CONFIDENCE


@pytest.mark.parametrize(
    "stream", ["latency", "errors", "input.prediction.label.x", "input.output.x", "prediction.labels"]
)
def test_other_streams_are_their_own_kind(stream: str) -> None:
    assert streams.find_stream_family(stream) == stream


@pytest.mark.parametrize(
    ("stream", "is_hidden"),
    [("input.age", True), ("prediction.value", True), ("prediction.value.price", True)]
    + [(name, False) for name in ("prediction.label", "prediction.confidence", "output.boxes.confidence", "latency")],
)
def test_numbers_of_inputs_and_values_are_hidden(stream: str, is_hidden: bool) -> None:
    assert streams.has_hidden_values(stream) is is_hidden
