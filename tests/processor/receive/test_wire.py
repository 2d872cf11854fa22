from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.processor.receive.wire import count_messages
from tests.support.otlp_requests import counter, exponential, histogram, request


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from(["sum", "histogram", "exponential_histogram"]))))
def test_points_are_counted_as_parsing_counts_them(metrics: list[tuple[int, str]]) -> None:
    fills = {
        "sum": counter(2**40),
        "histogram": histogram([1.0, 2.0], [1, 2, 3], sum=4.0),
        "exponential_histogram": exponential(1, (-7, [300, 2])),
    }
    body = b""
    expected = 0
    for points, kind in metrics:
        message = request("ml.x", kind, fills[kind], points=points, resource={"service.name": "é"})
        body += message.SerializeToString()  # messages that follow each other are one, merged
        expected += decode_metrics(message).points
    assert count_messages(body) == expected


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_survived(body: bytes) -> None:
    assert 0 <= count_messages(body) <= len(body)


def test_a_body_that_is_cut_off_counts_what_came_before() -> None:
    body = request("ml.x", "sum", counter(1), points=3).SerializeToString()
    assert [count_messages(body[:-cut]) for cut in (1, len(body) - 1)] == [3, 0]


def test_a_varint_without_an_end_is_damage() -> None:
    assert count_messages(b"\xff" * 30) == 0
