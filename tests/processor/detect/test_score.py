from __future__ import annotations

import math

import pytest

from otel_mlmon.processor.detect.score import DriftScore, State, Statistics


def test_statistics_are_columns_of_rows() -> None:
    statistics = Statistics.from_rows({"psi": (0.3, 0.01, 0.02), "hellinger": (0.0, None, None)})
    assert statistics == Statistics(
        names=("psi", "hellinger"), values=(0.3, 0.0), p_values=(0.01, None), noises=(0.02, None)
    )
    assert list(statistics.rows()) == [("psi", 0.3, 0.01, 0.02), ("hellinger", 0.0, None, None)]


def test_no_statistics() -> None:
    assert list(Statistics().rows()) == []
    assert Statistics() == Statistics.from_rows({})


@pytest.mark.parametrize(("state", "margin"), [("learning", -math.inf), ("ok", -5.0), ("drift", -5.0)])
def test_the_margin_is_the_evidence_over_the_line(state: State, margin: float) -> None:
    assert DriftScore(state=state, log10_evidence=2.0, log10_alarm_line=7.0).margin == margin
