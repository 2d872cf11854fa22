from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.kind_evidence import Evidence
from otel_mlmon.instrumentation.runtime.call import Tensor
from otel_mlmon.types import OutputKind


def evidence(name: str = "output", said: OutputKind | None = None, names: tuple[str, ...] = ()) -> Evidence:
    tensor = Tensor(name=name, layout="rows", dtype="float32")
    return Evidence(tensor, said=said, names=names, has_labels=False)


def kinds(found: Evidence, *batches: list[list[float]]) -> list[OutputKind | None]:
    return [found.of(np.array(batch, dtype=np.float32)) for batch in batches]


NAN = float("nan")


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        # nothing that tells, then something
        ([[[0, 0]], [[NAN, 1]], [[0.2, 0.8]]], [None, None, "probabilities"]),
        ([[[0]], [[NAN]], [[3]]], [None, None, "regression"]),
        # one row that could be many things, then one that shows which
        ([[[1, 0, 0]], [[3, -1, 0]], [[0.2, 0.3, 0.5]]], ["probabilities", "logits", "logits"]),
        ([[[0.3]], [[7.5]], [[0.3]]], ["sigmoid", "regression", "regression"]),
        # within [0, 1] but not summing to 1: eight rows make it sure, and one beyond shows the contrary
        ([[[0.9, 0.8, 0.1]] * 7, [[0.9, 0.8, 0.1]]], [None, "multi_label"]),
        ([[[0.9, 0.8, 0.1]], [[4, -2, 0.1]]], [None, "logits"]),
        ([[[0.9, 0.8, 0.1]] * 8, [[4, -2, 0.1]], [[0.9, 0.8, 0.1]]], ["multi_label", "logits", "logits"]),
        # contradicted twice: given up, for good
        (
            [[[1, 0, 0]], [[0.9, 0.8, 0.1]] * 8, [[4, -2, 0]], [[1, 0, 0]]],
            ["probabilities", "multi_label", "none", "none"],
        ),
        # a sequence: as many columns as there are steps
        ([[[1, 0, 0]], [[1, 0]], [[1, 0, 0]]], ["probabilities", "none", "none"]),
        # what holds no number contradicts nothing
        ([[[0.2, 0.8]], [[NAN, 5]], [[0, 0]]], ["probabilities"] * 3),
    ],
)
def test_it_waits_for_rows_that_tell_and_is_revised_once(batches: list[list[list[float]]], expected: list[str]) -> None:
    assert kinds(evidence(), *batches) == expected


def test_the_developers_word_is_never_revised() -> None:
    assert kinds(evidence(said="sigmoid"), [[NAN]], [[0.3]], [[8]]) == ["sigmoid"] * 3


def test_whether_it_was_revised() -> None:
    found = evidence()
    assert [(kind, found.is_revised) for kind in kinds(found, [[0.3]])] == [("sigmoid", False)]
    assert [(kind, found.is_revised) for kind in kinds(found, [[3]])] == [("regression", True)]
