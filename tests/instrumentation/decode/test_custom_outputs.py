from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from otel_mlmon import guard
from otel_mlmon.instrumentation.decode.custom_outputs import STAGE
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import MAX_WHOLE_BYTES
from otel_mlmon.instrumentation.settings import ModelOptions
from tests.support.calls import confidences_of, copy_calls, labels_of, summarize


def test_it_gets_copies_of_all_outputs_of_a_call_and_says_what_they_are() -> None:
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    outputs = {
        "boxes": boxes,
        "scores": np.array([0.9, 2.0, np.nan], np.float32),
        "word": np.array(["a"], dtype=object),
    }
    seen: list[dict[str, np.ndarray]] = []

    def read(given: dict[str, np.ndarray]) -> tuple[list[int], np.ndarray]:
        seen.append(given)
        given["boxes"] += 1  # its own
        return [1, 0, 7], given["scores"]

    snapshot = summarize(
        copy_calls([({}, outputs)] * 2, is_whole=True), ModelOptions(output_kind=read, labels=["cat", "dog"])
    )
    assert labels_of(snapshot) == {"dog": 2, "cat": 2, "7": 2}
    np.testing.assert_allclose(confidences_of(snapshot), [0.9, 1.0] * 2, rtol=1e-6)
    assert snapshot.batch_sizes.tolist() == [2.0, 2.0]
    assert [sorted(given) for given in seen] == [["boxes", "scores", "word"]] * 2
    assert np.array_equal(seen[1]["boxes"], boxes + 1)


@pytest.mark.parametrize(
    ("answer", "labels", "confidences"),
    [((None, 0.5), {}, [0.5]), ((["a", "a"], None), {"a": 2}, []), ((np.array([True]), None), {"1": 1}, [])],
)
def test_what_it_may_answer(answer: tuple[Any, Any], labels: dict[str, int], confidences: list[float]) -> None:
    records = copy_calls([({}, {"y": np.zeros((1, 2))})], is_whole=True)
    snapshot = summarize(records, ModelOptions(output_kind=lambda _: answer))
    assert (labels_of(snapshot), confidences_of(snapshot).tolist()) == (labels, confidences)


def test_it_reads_whole_rows_however_they_were_copied() -> None:
    rows = np.array([[1, 2], [3, 4]], np.float32)

    def read(given: dict[str, np.ndarray]) -> tuple[list[str], None]:
        return [str(row.tolist()) for row in given["y"]], None

    for is_whole in (True, False):
        snapshot = summarize(copy_calls([({}, {"y": rows})], is_whole=is_whole), ModelOptions(output_kind=read))
        assert labels_of(snapshot) == {"[1.0, 2.0]": 1, "[3.0, 4.0]": 1}


@pytest.mark.guarded
def test_a_call_it_fails_for_has_no_labels_and_the_others_have() -> None:
    stage = guard.guard(STAGE)
    stage.reset_stage()

    def read(given: dict[str, np.ndarray]) -> tuple[list[str], None]:
        if given["y"][0, 0]:
            raise ValueError("not today")
        return ["ok"], None

    records = copy_calls([({}, {"y": np.array([[flag]], dtype=np.float32)}) for flag in (0, 1, 0)], is_whole=True)
    snapshot = summarize(records, ModelOptions(output_kind=read))
    assert (labels_of(snapshot), snapshot.durations_s[""].size) == ({"ok": 2}, 3)


@pytest.mark.guarded
def test_one_that_always_fails_is_switched_off() -> None:
    stage = guard.guard(STAGE)
    stage.reset_stage()
    asked: list[int] = []

    def read(given: dict[str, np.ndarray]) -> tuple[None, None]:
        asked.append(1)
        raise ValueError

    summarize(copy_calls([({}, {"y": np.zeros((1, 1))})] * 300, is_whole=True), ModelOptions(output_kind=read))
    assert len(asked) == 100
    stage.reset_stage()


def test_an_output_too_large_to_copy_is_not_given_in_part() -> None:
    large = np.zeros((1, MAX_WHOLE_BYTES // 4 + 1), np.float32)
    records = copy_calls([({}, {"y": large})], is_whole=True)
    snapshot = summarize(records, ModelOptions(output_kind=lambda _: (["seen"], None)))
    assert (labels_of(snapshot), snapshot.batch_sizes.tolist()) == ({}, [1.0])
