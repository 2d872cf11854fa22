"""Plans of evaluation: the scores of streams that are planned once are those of streams that are planned each time."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.detect import evaluation_plan
from otel_mlmon.processor.detect.evaluation_plan import EvaluationPlans, PaneBatch
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.state.repository import encode_record
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey

POLICY = DetectionPolicy(tolerance=0.02, direction="both")
NAMES = ("a", "b", "c", "unjudged")
KEYS = [StreamKey(ModelKey("m", "1"), name) for name in NAMES]


def build_reference(bins: int, seed: int = 0) -> ReferenceCounts:
    names = tuple(str(number) for number in range(bins))
    counts = np.random.default_rng(seed).multinomial(5_000, np.full(bins, 1.0 / bins))
    return ReferenceCounts(bins=HistogramBins(names=names, is_ordered=True), counts=counts)


def build_window(key: StreamKey, reference: ReferenceCounts | None, pane: int) -> StreamWindow:
    bins = 3 if reference is None else reference.counts.size
    counts = np.random.default_rng([pane, NAMES.index(key.stream)]).multinomial(400, np.full(bins, 1.0 / bins))
    start_ns = pane * 10**10
    return StreamWindow(
        stream=key, start_ns=start_ns, end_ns=start_ns + 10**10, reference=reference, pane=counts, rolling=counts,
        rolling_start_ns=start_ns,
    )  # fmt: skip


def build_evaluator() -> DriftEvaluator:
    return DriftEvaluator(
        policy_for=lambda key: None if key.stream == "unjudged" else POLICY,
        alarm_line_for=lambda watched: 4.0 + watched,
    )


def test_a_plan_is_for_the_same_streams_against_the_very_same_references() -> None:
    plans, references = EvaluationPlans(), [build_reference(3), None]
    windows = [build_window(key, reference, 1) for key, reference in zip(KEYS[:2], references, strict=True)]
    assert plans.find(windows) is None
    batch = PaneBatch((3, "both"), [0], [POLICY], [7])
    plans.add(windows, [0, 1], [batch])
    later = [build_window(key, reference, 2) for key, reference in zip(KEYS[:2], references, strict=True)]
    plan = plans.find(later)
    assert plan is not None
    assert (plan.judged, plan.batches) == ([0, 1], [batch])
    assert plans.find(later[:1]) is None
    assert plans.find([later[0], build_window(KEYS[2], None, 2)]) is None
    assert plans.find([build_window(KEYS[0], build_reference(3), 2), later[1]]) is None  # equal, and another object
    plans.clear()
    assert plans.find(later) is None


def test_the_plans_that_are_remembered_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_plan, "MAX_PLANS", 2)
    plans, windows = EvaluationPlans(), [build_window(key, None, 1) for key in KEYS]
    plans.add([], [], [])
    for window in windows:
        plans.add([window], [0], [])
    assert [plans.find([window]) is not None for window in windows] == [False, False, True, True]


def test_scores_and_evidence_are_those_without_plans() -> None:
    """Streams learn, get other references, are removed and come again, alone and together, twice in a call as well."""
    rng = np.random.default_rng(3)
    planned, fresh = build_evaluator(), build_evaluator()
    references: dict[StreamKey, ReferenceCounts | None] = dict.fromkeys(KEYS)
    found = 0
    for pane in range(120):
        for key in KEYS:
            if (references[key] is None and pane > 3) or rng.random() < 0.03:
                references[key] = build_reference(int(rng.choice([2, 3, 5])), seed=pane)
        if rng.random() < 0.05:
            key = KEYS[int(rng.integers(3))]
            planned.remove_stream(key)
            fresh.remove_stream(key)
        keys = KEYS if rng.random() < 0.8 else KEYS[:2]
        panes = [2 * pane] if rng.random() < 0.9 else [2 * pane, 2 * pane + 1]
        windows = [build_window(key, references[key], number) for number in panes for key in keys]
        found += planned._plans.find(windows) is not None
        fresh._plans.clear()
        assert [(window.stream, repr(score)) for window, score in planned.evaluate(windows)] == [
            (window.stream, repr(score)) for window, score in fresh.evaluate(windows)
        ]
        assert planned.streams() == fresh.streams()
        for key in planned.streams():
            assert encode_record(planned.pack([key])) == encode_record(fresh.pack([key]))
    assert found > 40
