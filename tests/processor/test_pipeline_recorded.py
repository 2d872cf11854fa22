"""Two hours of recorded traffic: every window, score and stored record is, bit for bit, what a slow plain way makes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_mlmon.errors import OverloadedError
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.receive.data_point import PointGroup
from otel_mlmon.processor.receive.decode import decode_metrics
from otel_mlmon.processor.state.repository import encode_record
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.outcome import PointOutcome
from otel_mlmon.processor.window.progress import ModelProgress
from otel_mlmon.processor.window.reference import ModelWindowSettings, MovingReferenceSettings
from otel_mlmon.processor.window.window import StreamWindow, WindowSettings
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.simulated_processor import START_NS
from otel_mlmon.types import ModelKey
from tests.support.plain_windows import PlainModel, copy_series
from tests.support.recorded_traffic import CONFIGURATION, PANE_S, record_traffic

WINDOWS = WindowSettings(pane_s=PANE_S, lateness_s=60.0, idle_after_s=180.0, rolling_s=1200.0)


def choose_settings(model: ModelKey) -> ModelWindowSettings:
    moving = MovingReferenceSettings(rolling_hours=1, lag_hours=1) if model.name == "price" else None
    return ModelWindowSettings(learn=400, moving=moving)


class PlainAggregator:
    """The windows that a real aggregator is about to make, made one by one."""

    def __init__(self, real: WindowAggregator) -> None:
        self.real = real
        self.models: dict[ModelKey, PlainModel] = {}

    def close_panes(self, now_ns: int) -> tuple[list[StreamWindow], list[StreamWindow]]:
        """Closes what is due; returns the real windows and the plain ones."""
        state, is_complete = self.real._state, self.real._intake.is_complete
        pending = {key: copy_series(model.open_panes) for key, model in state.models.items()}
        closed_ns = {key: model.progress.closed_ns for key, model in state.models.items()}
        windows = self.real.close_panes(now_ns)
        plain: list[StreamWindow] = []
        for key, panes in pending.items():
            model, own = state.models[key], self.models.setdefault(key, PlainModel(key))
            for end_ns, series in panes.items():
                if end_ns in model.open_panes:
                    continue
                if end_ns <= closed_ns[key]:
                    own.amend_pane(model, series, end_ns, is_complete)
                else:
                    plain += own.close_pane(model, series, end_ns, is_complete)
        return windows, sorted(plain, key=lambda window: (window.end_ns, window.stream))


def describe_window(window: StreamWindow) -> dict[str, Any]:
    """All of a window; empty counts are as good as zeros."""
    described = {name: getattr(window, name) for name in StreamWindow.__struct_fields__}
    rolling = described.pop("rolling")
    reference = described.pop("reference")
    return {
        **{name: repr(value) for name, value in described.items()},
        "pane": window.pane.tolist(),
        "rolling": rolling.tolist() if rolling.any() else [],
        "reference": None if reference is None else (repr(reference.bins), reference.counts.tolist(), reference.origin),
    }


def make_evaluator() -> DriftEvaluator:
    return DriftEvaluator(
        policy_for=lambda _: DetectionPolicy(tolerance=0.02, direction="both"), alarm_line_for=lambda _: 4.0
    )


def test_windows_and_scores_are_those_of_one_stream_at_a_time() -> None:
    now_ns = START_NS
    real = WindowAggregator(settings_for=choose_settings, windows=WINDOWS, clock_ns=lambda: now_ns)
    plain = PlainAggregator(real)
    together, alone = make_evaluator(), make_evaluator()
    states: set[str] = set()
    for step in record_traffic(seed=1, start_ns=START_NS):
        now_ns = step.now_ns
        for request in step.requests:
            real.add_points(item for item in decode_metrics(request).items if isinstance(item, PointGroup))
        windows, expected = plain.close_panes(now_ns)
        assert list(map(describe_window, windows)) == list(map(describe_window, expected))
        scores = {(window.stream, window.end_ns): score for window, score in together.evaluate(windows)}
        # A new version takes over what the one before knew when the panes came.
        for window in sorted(expected, key=lambda window: window.stream.model.version, reverse=True):
            ((_, score),) = alone.evaluate([window])
            assert repr(score) == repr(scores.pop((window.stream, window.end_ns)))
            states.add(score.state)
        assert scores == {}
    for stream in together.streams():
        assert encode_record(together.pack([stream])) == encode_record(alone.pack([stream]))
    assert {"accepted", "duplicate", "late", "reset"} <= real.counts.keys()
    assert {"learning", "ok", "drift", "no_data"} <= states


def describe_progress(aggregator: WindowAggregator) -> tuple[int, dict[ModelKey, ModelProgress]]:
    """How many points wait, and how far each model is."""
    models = aggregator._state.models
    return aggregator.pending_points, {key: replace(model.progress, introduction=None) for key, model in models.items()}


def offer(aggregator: WindowAggregator, request: ExportMetricsServiceRequest) -> Counter[PointOutcome] | None:
    """Adds a request; returns the outcomes of its points, None if there was no room for them."""
    try:
        return aggregator.add_points(item for item in decode_metrics(request).items if isinstance(item, PointGroup))
    except OverloadedError:
        return None


@pytest.mark.parametrize(("max_pending_points", "is_killed"), [(1_000_000, False), (1_000_000, True), (120, False)])
def test_panes_that_are_closed_one_by_one_are_those_of_one_call(
    tmp_path: Path, max_pending_points: int, is_killed: bool
) -> None:
    """Several panes of each model are due at once; between two of them the processor is killed, or not."""
    now_ns, calls, refusals = START_NS, 0, 0
    windows = replace(WINDOWS, max_pending_points=max_pending_points)
    store = SqliteRepository(tmp_path, synchronous="OFF")

    def start() -> WindowAggregator:
        return WindowAggregator(settings_for=choose_settings, windows=windows, clock_ns=lambda: now_ns)

    at_once, in_parts = start(), start()
    for number, step in enumerate(record_traffic(seed=5, start_ns=START_NS, panes=40)):
        now_ns = step.now_ns
        for request in step.requests:
            outcomes = offer(at_once, request)
            assert offer(in_parts, request) == outcomes
            refusals += outcomes is None
        if number % 4 < 3:
            continue
        parts: list[StreamWindow] = []
        while True:
            if is_killed:
                in_parts.save(store)
                store.commit()
                in_parts = start()
                in_parts.load(store)
            part = in_parts.close_panes(now_ns, is_late=lambda: True)
            assert len({(window.end_ns, window.stream.model) for window in part}) <= 1
            parts += part
            if not in_parts.unclosed_models:
                break
            calls += 1
        parts.sort(key=lambda window: (window.end_ns, window.stream))  # the models took turns
        assert list(map(describe_window, parts)) == list(map(describe_window, at_once.close_panes(now_ns)))
        assert describe_progress(in_parts) == describe_progress(at_once)
    assert calls >= 40
    assert (refusals > 0) is (max_pending_points == 120)
    store.close()


def describe_state(processor: SimulatedProcessor) -> dict[str, Any]:
    """All that is shown, and the evidence of every stream."""
    evidence = processor._pipeline._evidence
    return {
        "documents": json.dumps(processor.document(), default=repr),
        "scores": {model: repr(sorted(scores.items())) for model, scores in evidence.scores.items()},
        "evidence": {
            stream: encode_record(evidence.evaluator.pack([stream])) for stream in sorted(evidence.evaluator.streams())
        },
    }


def test_a_kill_changes_nothing_that_is_shown_or_known() -> None:
    kills = 0
    with SimulatedProcessor(CONFIGURATION, start_ns=START_NS) as processor:
        for step in record_traffic(seed=3, start_ns=START_NS, panes=40):
            processor.now_ns = step.now_ns
            if step.is_restart:
                before = describe_state(processor)
                processor._pipeline._repository.close()
                processor._open_pipeline()
                assert describe_state(processor) == before
                kills += 1
            for request in step.requests:
                processor.receive(request)
            processor.advance()
    assert kills == 2
