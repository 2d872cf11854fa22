"""Which outputs are one classification, and by what name it is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.instrumentation.decode.heads import MAX_HEADS, Classification, ClassificationJoiner, OutputSeriesNames
from otel_mlmon.instrumentation.decode.predictions import ClassificationHead, PredictedLabels, PredictionConfidences

TABLE = ["a", "b", "c"]


def scores(output: str, codes: list[int], kind: Any = "probabilities", **more: Any) -> Classification:
    """One row a call, each of confidence 0.5."""
    calls = np.arange(len(codes))
    likelihoods = PredictionConfidences(np.full(len(codes), 0.5), calls)
    return classification(output, kind, codes, confidences=likelihoods, width=more.pop("width", 3), **more)


def classes(output: str, codes: list[int], kind: Any = "labels", **more: Any) -> Classification:
    return classification(output, kind, codes, has_scores=False, **more)


def classification(output: str, kind: Any, codes: list[int], **more: Any) -> Classification:
    ones = np.ones(len(codes), dtype=np.int64)
    labels = PredictedLabels(np.array(codes, dtype=np.int64), np.arange(len(codes)), more.pop("table", TABLE))
    return Classification(**{"output": output, "kind": kind, "labels": labels, "sizes": ones, "decoded": ones, **more})


def summary(heads: dict[str, ClassificationHead]) -> dict[str, tuple[list[str], int, int]]:
    """Labels, number of confidences and rows that are not counted, by head."""
    return {
        name: (
            [head.labels.table[code] for code in head.labels.codes.tolist()],
            head.confidences.values.size,
            int(head.uncounted.sum()),
        )
        for name, head in heads.items()
    }


def test_the_only_label_and_the_only_scores_are_one_head_whatever_they_say() -> None:
    joined = ClassificationJoiner().join_outputs([scores("p", [0, 0, 1]), classes("label", [2, 1, 2])])
    assert summary(joined) == {"p": (["c", "b", "c"], 3, 0)}


def test_labels_go_with_the_scores_that_they_were_chosen_by() -> None:
    parts = [classes("l1", [0, 1, 1]), classes("l2", [2, 2, 0]), scores("p2", [1, 1, 2]), scores("p1", [2, 0, 0])]
    assert summary(ClassificationJoiner().join_outputs(parts)) == {
        "p2": (["c", "c", "a"], 3, 0),
        "p1": (["a", "b", "b"], 3, 0),
    }


def test_the_models_file_says_what_belongs_together() -> None:
    parts = [
        classes("l1", [0, 1], companion="p2"), scores("p1", [0, 1]), scores("p2", [1, 1], companion="l1"),
    ]  # fmt: skip
    assert summary(ClassificationJoiner().join_outputs(parts)) == {"p1": (["a", "b"], 2, 0), "p2": (["a", "b"], 2, 0)}


def test_logits_and_their_probabilities_are_one_head_and_others_are_two() -> None:
    joiner = ClassificationJoiner()
    first = [scores("logits", [0, 1], "logits"), scores("p", [0, 1]), scores("q", [1, 1]), scores("r", [0, 1], width=4)]
    assert list(joiner.join_outputs(first)) == ["logits", "q", "r"]
    later = [scores("logits", [0, 1], "logits"), scores("p", [1, 0])]
    assert list(joiner.join_outputs(later)) == ["logits"]


def test_scores_that_come_later_join_the_label_that_was_first() -> None:
    joiner = ClassificationJoiner()
    assert summary(joiner.join_outputs([classes("label", [0])])) == {"label": (["a"], 0, 0)}
    assert summary(joiner.join_outputs([classes("label", [1]), scores("p", [0])])) == {"label": (["b"], 1, 0)}


def test_ranked_classes_go_with_ranked_scores_of_the_same_width_only() -> None:
    values = scores("values", [], "top_k", width=5, sizes=np.array([2]), decoded=np.array([2]))
    indices = classes("indices", [2, 0], "top_k", width=5, sizes=np.array([2]), decoded=np.array([2]))
    assert summary(ClassificationJoiner().join_outputs([values, scores("p", [0]), indices])) == {
        "values": (["c", "a"], 0, 0),
        "p": (["a"], 1, 0),
    }
    assert summary(ClassificationJoiner().join_outputs([values])) == {"values": ([], 0, 2)}


def test_labels_that_were_copied_in_part_are_those_of_all_scores_if_they_agree() -> None:
    def parts(*copied: int) -> list[Classification]:
        label = classes("label", list(copied), sizes=np.array([5]), decoded=np.array([len(copied)]))
        return [label, scores("p", [0, 1, 2, 0, 1], sizes=np.array([5]), decoded=np.array([5]))]

    # Two steps of three rows: the first and the fourth.
    assert summary(ClassificationJoiner().join_outputs(parts(0, 0))) == {"p": (["a", "b", "c", "a", "b"], 5, 0)}
    assert summary(ClassificationJoiner().join_outputs(parts(0, 1))) == {"p": (["a", "b"], 5, 3)}


def test_rows_that_waited_are_not_counted() -> None:
    assert summary(ClassificationJoiner().join_outputs([scores("p", [0], earlier=7)])) == {"p": (["a"], 1, 7)}


def test_heads_beyond_the_limit_are_left_out() -> None:
    parts = [scores(f"p{number}", [number % 3], width=2 + number) for number in range(MAX_HEADS + 3)]
    assert list(ClassificationJoiner().join_outputs(parts)) == [f"p{number}" for number in range(MAX_HEADS)]


@given(st.lists(st.lists(st.sampled_from("abcd"), unique=True), max_size=6), st.booleans())
def test_a_name_never_changes(batches: list[list[str]], has_several: bool) -> None:
    names = OutputSeriesNames(has_several=has_several)
    assigned: dict[str, str] = {}
    for outputs in batches:
        present = dict(names.assign_series_names(outputs))
        assert {output: present[output] for output in assigned} == assigned
        assigned = present
    filled = [outputs for outputs in batches if outputs]
    only = filled[0][0] if filled and len(filled[0]) == 1 and not has_several else None
    assert assigned == {output: "" if output == only else output for outputs in batches for output in outputs}
