from __future__ import annotations

from otel_mlmon.instrumentation.sentry.spans import MAX_SPANS, MAX_TRANSACTIONS, Children


def test_spans_are_given_once() -> None:
    children = Children()
    children.expect("a")
    children.add("a", {"op": "1"})
    children.add("b", {"op": "2"})
    assert children.is_expected("a")
    assert not children.is_expected("b")
    assert children.take("a") == [{"op": "1"}]
    assert children.take("a") == []
    assert not children.is_expected("a")


def test_transactions_that_never_end_are_forgotten() -> None:
    children = Children()
    for index in range(20 * MAX_TRANSACTIONS):
        children.expect(str(index))
        children.add(str(index), {})
    assert sum(len(children.take(str(index))) for index in range(20 * MAX_TRANSACTIONS)) == MAX_TRANSACTIONS
    assert children.take(str(20 * MAX_TRANSACTIONS - 1)) == []


def test_a_transaction_is_bounded() -> None:
    children = Children()
    for index in range(2 * MAX_SPANS):
        children.add("a", {"index": index})
    assert [span["index"] for span in children.take("a")] == list(range(MAX_SPANS))
