from __future__ import annotations

from otel_mlmon.instrumentation.sentry.spans import MAX_CHILD_SPANS, MAX_TRANSACTIONS, ChildSpans


def test_spans_are_given_once() -> None:
    child_spans = ChildSpans()
    child_spans.expect("a")
    child_spans.add("a", {"op": "1"})
    child_spans.add("b", {"op": "2"})
    assert child_spans.is_expected("a")
    assert not child_spans.is_expected("b")
    assert child_spans.pop("b") == []
    assert child_spans.pop("a") == [{"op": "1"}]
    assert child_spans.pop("a") == []
    assert not child_spans.is_expected("a")


def test_transactions_that_never_end_are_forgotten() -> None:
    child_spans = ChildSpans()
    for index in range(20 * MAX_TRANSACTIONS):
        child_spans.expect(str(index))
        child_spans.add(str(index), {})
    assert sum(len(child_spans.pop(str(index))) for index in range(20 * MAX_TRANSACTIONS)) == MAX_TRANSACTIONS
    assert child_spans.pop(str(20 * MAX_TRANSACTIONS - 1)) == []


def test_a_transaction_is_bounded() -> None:
    child_spans = ChildSpans()
    child_spans.expect("a")
    for index in range(2 * MAX_CHILD_SPANS):
        child_spans.add("a", {"index": index})
    assert [span["index"] for span in child_spans.pop("a")] == list(range(MAX_CHILD_SPANS))


def test_calls_that_have_no_span_yet_are_counted() -> None:
    child_spans = ChildSpans()
    assert child_spans.count_waiting("a") == (0, MAX_CHILD_SPANS)
    for _ in range(5):
        child_spans.expect("a")
    child_spans.add("a", {})
    child_spans.add("a", {})
    assert child_spans.count_waiting("a") == (3, MAX_CHILD_SPANS - 2)
