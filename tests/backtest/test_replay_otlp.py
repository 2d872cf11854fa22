from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from otel_mlmon.backtest.api import run_backtest
from otel_mlmon.backtest.report import BacktestReport
from otel_mlmon.backtest.request import BacktestRequest, WindowLength
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile
from tests.support.otlp_lines import START_S, feature, labels, line

EXPORTS = 60
"""One in five seconds: thirty windows of ten."""


def reference(tmp_path: Path) -> Path:
    path = tmp_path / "fraud.reference.json"
    generator = np.random.default_rng(1)
    Profile.from_data(
        model="fraud",
        labels=generator.choice(["ham", "spam"], 10_000, p=[0.9, 0.1]).tolist(),
        features={"age": generator.lognormal(3, 0.3, 10_000), "gone": np.arange(10.0)},
    ).write_file(path)
    return path


def exports(tmp_path: Path, *, shift_from: int) -> Path:
    generator = np.random.default_rng(2)
    lines = []
    for export in range(EXPORTS):
        spam = int(generator.binomial(200, 0.1 if export < shift_from else 0.4))
        ages = generator.lognormal(3, 0.3, 200)
        at_s = START_S + 5 * export + 1
        lines.append(line(at_s, [labels({"ham": 200 - spam, "spam": spam}), feature("age", ages)]))
        lines.append('{"resourceLogs": []}\n')
    path = tmp_path / "telemetry.json"
    # The exporter keeps the order of arrival, which is not always that of time.
    path.write_text("".join(lines[20:24] + lines[:20] + lines[24:]))
    return path


def judged(tmp_path: Path, *, shift_from: int, window_s: float = 10.0) -> BacktestReport:
    return run_backtest(
        BacktestRequest(
            reference=str(reference(tmp_path)),
            data=str(exports(tmp_path, shift_from=shift_from)),
            window=WindowLength(time_s=window_s),
        )
    )


def test_kept_telemetry_is_judged_as_it_would_have_been(tmp_path: Path) -> None:
    report = judged(tmp_path, shift_from=40)
    streams = {entry.stream: entry for entry in report.streams}
    label = streams["prediction.label"]
    assert (report.windows, report.rows, report.window, report.notes) == (30, None, "10s", ())
    assert (label.model, label.kind, label.state) == ("fraud", "label", "alarm")
    assert (label.first_alarm_window, label.onset_window) == (20, 20)
    assert (label.first_alarm, label.onset) == ("2026-01-01T00:03:30Z", "2026-01-01T00:03:20Z")
    assert [point.count for point in label.points] == [400] * 30
    assert (streams["input.age"].state, streams["input.age"].kind) == ("weak", "numeric")
    assert (streams["input.gone"].state, streams["input.gone"].reason) == ("left_out", "not in the data")
    assert [(alert.window, alert.rule, alert.causes) for alert in report.alerts] == [
        (20, "prediction_drift", ("prediction.label",))
    ]


def test_without_drift_there_is_no_alarm(tmp_path: Path) -> None:
    assert judged(tmp_path, shift_from=EXPORTS, window_s=5.0).alarmed == ()


def test_a_stream_without_a_reference_learns_one(tmp_path: Path) -> None:
    empty = tmp_path / "empty.reference.json"
    Profile(model="fraud", created="2026-01-01T00:00:00Z").write_file(empty)
    data = exports(tmp_path, shift_from=40)
    # Of 60 windows 25 are learned from, and the design effect of two classes takes 20.
    report = run_backtest(BacktestRequest(reference=str(empty), data=str(data), window=WindowLength(time_s=5.0)))
    assert report.notes == ("Not in the reference, so learned from the data itself: input.age, prediction.label.",)
    assert {entry.stream: entry.state for entry in report.streams} == {"prediction.label": "alarm", "input.age": "weak"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}\n{broken\n", ":2: not JSON"),
        ('{"resourceMetrics": {}}\n', ":1: resourceMetrics: not an array"),
        ("{}\n\n", ": no prediction telemetry"),
        ("", ": no prediction telemetry"),
    ],
)
def test_a_file_that_is_none_is_told_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    data = tmp_path / "telemetry.json"
    data.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        run_backtest(BacktestRequest(reference=str(reference(tmp_path)), data=str(data)))
    assert str(caught.value).startswith(f"{data}{fault}")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"window": WindowLength(rows=1000)}, "--window: OTLP holds counts and not rows"),
        ({"timestamp": "at"}, "--timestamp: OTLP has the time of every point already"),
        ({"columns": {"age": "numeric"}}, "--columns: a reference profile already says"),
    ],
)
def test_what_telemetry_cannot_be_options(tmp_path: Path, options: dict[str, object], fault: str) -> None:
    data = tmp_path / "telemetry.json"
    data.write_text(json.dumps({}))
    with pytest.raises(ConfigurationError, match=fault):
        run_backtest(BacktestRequest(reference=str(reference(tmp_path)), data=str(data), **options))  # type: ignore[arg-type]
