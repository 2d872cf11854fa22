from __future__ import annotations

from otel_mlmon.instrumentation.sentry.spans import MAX_CHILD_SPANS, MAX_TRANSACTIONS, ChildSpanStore


def test_spans_are_given_once() -> None:
    child_spans = ChildSpanStore()
    child_spans.expect_span("a")
    child_spans.add_span("a", {"op": "1"})
    child_spans.add_span("b", {"op": "2"})
    assert child_spans.is_span_expected("a")
    assert not child_spans.is_span_expected("b")
    assert child_spans.pop_spans("b") == []
    assert child_spans.pop_spans("a") == [{"op": "1"}]
    assert child_spans.pop_spans("a") == []
    assert not child_spans.is_span_expected("a")


def test_transactions_that_never_end_are_forgotten() -> None:
    child_spans = ChildSpanStore()
    for index in range(20 * MAX_TRANSACTIONS):
        child_spans.expect_span(str(index))
        child_spans.add_span(str(index), {})
    assert sum(len(child_spans.pop_spans(str(index))) for index in range(20 * MAX_TRANSACTIONS)) == MAX_TRANSACTIONS
    assert child_spans.pop_spans(str(20 * MAX_TRANSACTIONS - 1)) == []


def test_a_transaction_is_bounded() -> None:
    child_spans = ChildSpanStore()
    child_spans.expect_span("a")
    for index in range(2 * MAX_CHILD_SPANS):
        child_spans.add_span("a", {"index": index})
    assert [span["index"] for span in child_spans.pop_spans("a")] == list(range(MAX_CHILD_SPANS))


def test_calls_that_have_no_span_yet_are_counted() -> None:
    child_spans = ChildSpanStore()
    assert child_spans.count_waiting_calls("a") == (0, MAX_CHILD_SPANS)
    for _ in range(5):
        child_spans.expect_span("a")
    child_spans.add_span("a", {})
    child_spans.add_span("a", {})
    assert child_spans.count_waiting_calls("a") == (3, MAX_CHILD_SPANS - 2)
