from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.semconv import OTHER
from otel_mlmon.sketch.stream_sketch import CategoryCounts

COUNTS = st.dictionaries(st.sampled_from(["a", "b", "c", "d", OTHER]), st.integers(1, 100))


def test_the_most_frequent_stay_and_ties_go_by_name() -> None:
    counted = CategoryCounts(counts={"c": 2, "b": 2, "a": 1, OTHER: 7, "d": 9})
    assert counted.list_top_categories(2) == CategoryCounts(counts={"d": 9, "b": 2, OTHER: 10})
    assert list(counted.list_top_categories(2).counts) == ["d", "b", OTHER]


@given(COUNTS, st.integers(0, 6))
def test_top_keeps_the_total(counts: dict[str, int], limit: int) -> None:
    counted = CategoryCounts(counts=counts)
    assert counted.list_top_categories(limit).total == counted.total


@given(COUNTS)
def test_labels_that_are_not_named_go_last(counts: dict[str, int]) -> None:
    over = CategoryCounts(counts=counts).select_label_counts(["b", "a", OTHER])
    unnamed = sum(count for label, count in counts.items() if label not in ("a", "b"))
    assert over == [counts.get("b", 0), counts.get("a", 0), unnamed]
