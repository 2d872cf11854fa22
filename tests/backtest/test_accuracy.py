"""The estimated accuracy in a backtest: report, page, terminal and exit code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from otel_mlmon.backtest.accuracy import NO_LABELS, AccuracyBounds, parse_accuracy_bounds
from otel_mlmon.backtest.api import run
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import Floats

WINDOWS, ROWS = 20, 500


def draw(rng: np.random.Generator, n: int, *, unsure: float) -> Floats:
    return np.asarray(np.where(rng.random(n) < unsure, rng.uniform(0.5, 0.8, n), rng.uniform(0.9, 1.0, n)))


def profile(*, has_labels: bool = True) -> Profile:
    rng = np.random.default_rng(1)
    confidences = draw(rng, 20_000, unsure=0.1)
    calibration = Calibration.from_predictions(confidences, rng.random(20_000) < confidences) if has_labels else None
    return Profile.from_data(model="fraud", confidences=confidences, calibration=calibration)


@pytest.fixture(scope="module")
def data() -> pa.Table:
    """Half of the predictions are unsure from window 10 on: the accuracy falls from .92 to .80."""
    rng = np.random.default_rng(2)
    parts = [draw(rng, ROWS, unsure=0.1 if window < 10 else 0.5) for window in range(WINDOWS)]
    return pa.table({"confidence": np.concatenate(parts)})


def test_a_drop_is_found_where_confidence_shows_it(data: pa.Table) -> None:
    result = run(profile(), data, window=ROWS, accuracy_drop="3%")
    report = result.report.accuracy
    assert report is not None
    assert (report.state, report.first_alarm_window, len(report.points)) == ("alarm", 10, WINDOWS)
    assert report.demanded == pytest.approx((report.labelled_accuracy or 0.0) - 0.03)
    assert all(point.low <= 0.92 <= point.high for point in report.points[:10])
    assert all(point.low <= 0.80 <= point.high for point in report.points[10:])
    rules = [(alert.window, alert.rule) for alert in result.report.alerts]
    assert (10, "accuracy") in rules
    assert result.report.exit_code(is_gate=True) == 1
    assert "no measurement" in repr(result)
    page = result._repr_html_()
    assert "Estimated accuracy, window by window" in page
    assert "no measurement" in page
    assert result.to_dict()["accuracy"]["points"][10]["window"] == 10


def test_quiet_data_is_ok_and_estimated_even_without_a_bound(data: pa.Table) -> None:
    quiet = data.slice(0, 10 * ROWS)
    bound = run(profile(), quiet, window=ROWS, min_accuracy="85%", accuracy_drop="5%").report
    assert bound.accuracy is not None
    assert (bound.accuracy.state, bound.exit_code(is_gate=True)) == ("ok", 0)
    free = run(profile(), quiet, window=ROWS).report.accuracy
    assert free is not None
    assert (free.state, free.demanded, len(free.points)) == ("ok", None, 10)


def test_a_bound_without_labelled_data_is_unknown_and_no_gate_passes(data: pa.Table) -> None:
    result = run(profile(has_labels=False), data.slice(0, 10 * ROWS), window=ROWS, min_accuracy=0.9)
    assert result.report.accuracy is not None
    assert (result.report.accuracy.state, result.report.accuracy.reason) == ("unknown", NO_LABELS)
    assert result.unjudged == (NO_LABELS,)
    assert result.report.exit_code(is_gate=True) == 3
    assert "no labelled data" in " ".join(repr(result).split())
    assert run(profile(has_labels=False), data, window=ROWS).report.accuracy is None


@pytest.mark.parametrize("values", [("0%", None), ("100%", None), (None, "x"), (None, 1.5), (float("nan"), None)])
def test_bounds_that_are_no_share_are_refused(values: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"(min-accuracy|accuracy-drop): "):
        parse_accuracy_bounds(*values)


def test_bounds() -> None:
    assert parse_accuracy_bounds("90%", 0.03) == AccuracyBounds(lowest=0.9, max_drop=0.03)
    assert not parse_accuracy_bounds(None, None)
