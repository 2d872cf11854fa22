"""What a backtest finds, and what it leaves unsaid, on public data and on data made to be hard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from otel_mlmon.backtest.api import run_backtest
from otel_mlmon.backtest.report import BacktestReport, StreamReport
from otel_mlmon.backtest.request import BacktestRequest, FalseAlarmBudget, WindowLength
from otel_mlmon.errors import ConfigurationError, DataError
from otel_mlmon.processor.config.units import FalseAlarms
from otel_mlmon.reference.profile import Profile
from tests.support.tables import car_loan, judged, judged_tables, normal, table


def stream(report: BacktestReport, name: str) -> StreamReport:
    return next(entry for entry in report.streams if entry.stream == name)


# ---------------------------------------------------------------- public data


def test_car_loans_drift_at_window_25_where_they_do_and_nowhere_else() -> None:
    request = BacktestRequest(
        reference=str(car_loan("reference")), data=str(car_loan("analysis")), window=WindowLength(rows=1000)
    )
    report = run_backtest(request)
    assert {entry.stream: entry.first_alarm_window for entry in report.streams} == {
        "y_pred_proba": 25,
        "car_value": 25,
        "salary_range": 25,
        "loan_length": 25,
        "repaid_loan_on_prev_car": 25,  # 55 % of the reference and of windows 0 to 24 have repaid, 80 % afterwards
        "debt_to_income_ratio": None,
        "size_of_downpayment": None,
        "driver_tenure": None,
        "y_pred": None,
        "id": None,
        "timestamp": None,
        "repaid": None,
    }
    assert {entry.onset_window for entry in report.alarmed} == {25}
    left_out = {entry.stream: entry.reason for entry in report.streams if entry.state == "left_out"}
    assert left_out == {
        "id": "an identifier: 50000 different values in 50000 rows",
        "timestamp": "points in time",
        "repaid": "not in the data",
    }
    assert [(alert.window, alert.rule, alert.state) for alert in report.alerts] == [
        (25, "prediction_drift", "firing"),
        (25, "data_drift", "firing"),
    ]
    assert stream(report, "salary_range").first_alarm == "2019-04-06T04:10:28Z"


def test_the_reference_of_the_car_loans_does_not_drift_from_itself(tmp_path: Path) -> None:
    lines = car_loan("reference").read_text(encoding="utf-8").splitlines(keepends=True)
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("".join(lines[:25_001]), encoding="utf-8")
    second.write_text("".join([lines[0], *lines[25_001:]]), encoding="utf-8")
    assert run_backtest(BacktestRequest(reference=str(first), data=str(second))).alarmed == ()


def test_brighter_digits_are_found_within_a_window() -> None:
    images = load_digits().images / 16.0
    generator = np.random.default_rng(5)
    order = generator.permutation(len(images))
    rows = [generator.choice(order[900:], 200) for _ in range(20)]
    shown = np.concatenate([images[one] + 0.05 * (window >= 10) for window, one in enumerate(rows)])

    def columns(pictures: NDArray[Any]) -> dict[str, NDArray[Any]]:
        flat = pictures.reshape(len(pictures), -1)
        return {"image.brightness": flat.mean(1), "image.contrast": flat.std(1)}

    report = judged(columns(images[order[:900]]), columns(shown), rows=200)
    entry = stream(report, "image.brightness")
    assert (entry.first_alarm_window, entry.onset_window) == (10, 10)
    assert stream(report, "image.contrast").state == "weak"  # 900 images are a small reference


# ---------------------------------------------------------------- what is found


def test_drift_from_the_first_row_is_found_once_the_design_effect_is_known() -> None:
    report = judged({"x": normal(10_000, seed=1)}, {"x": normal(5_000, seed=2, mean=1.0)})
    assert stream(report, "x").first_alarm_window == 0


def test_no_drift_is_no_alarm_in_many_windows() -> None:
    columns = {f"x{column}": normal(10_000, seed=column) for column in range(5)}
    data = {f"x{column}": normal(200_000, seed=100 + column) for column in range(5)}
    report = judged(columns, data)
    assert (report.windows, report.alarmed, report.alerts) == (200, (), ())
    assert {entry.state for entry in report.streams} == {"ok"}


def test_the_end_of_a_drift_is_a_recovery() -> None:
    data = np.concatenate([normal(5_000, seed=2), normal(3_000, seed=3, mean=1.0), normal(20_000, seed=4)])
    report = judged({"x": normal(10_000, seed=1)}, {"x": data})
    assert (stream(report, "x").state, stream(report, "x").first_alarm_window) == ("recovered", 5)
    assert [alert.state for alert in report.alerts] == ["firing", "resolved"]


def test_missing_values_are_drift() -> None:
    data = normal(6_000, seed=2)
    data[3_000::5] = math.nan
    report = judged({"x": normal(10_000, seed=1)}, {"x": data})
    entry = stream(report, "x")
    assert (entry.first_alarm_window, entry.before, entry.now) == (3, "missing: 0 %", "20 %")


def test_what_the_model_said_is_judged_as_the_processor_does() -> None:
    kinds: dict[str, Any] = {"class": "label", "sure": "confidence"}
    generator = np.random.default_rng(3)
    reference = {"class": generator.choice(["a", "b"], 10_000), "sure": generator.beta(8, 2, 10_000)}
    surer = {"class": generator.choice(["a", "b"], 6_000, p=[0.6, 0.4]), "sure": generator.beta(20, 2, 6_000)}
    report = judged(reference, surer, columns=kinds)
    assert (stream(report, "class").state, stream(report, "class").tolerance) == ("alarm", 0.02)
    assert stream(report, "sure").state == "ok"  # more of it is no collapse
    unsure = {**surer, "sure": generator.beta(5, 5, 6_000)}
    assert stream(judged(reference, unsure, columns=kinds), "sure").state == "alarm"


@pytest.mark.parametrize("which", ["ref", "data"])
def test_confidences_in_per_cent_are_a_fault_and_not_one_bin(which: str) -> None:
    shares = {"p": np.linspace(0.0, 1.0 + 1e-6, 2_000)}
    percents = {"p": 100 * shares["p"]}
    reference, data = (percents, shares) if which == "ref" else (shares, percents)
    with pytest.raises(ConfigurationError) as caught:
        judged(reference, data, columns={"p": "confidence"})
    assert caught.value.faults == ("row 21: column 'p': 1.05053 is no confidence, which is within 0 and 1",)
    mixed = {"p": np.random.default_rng(1).permutation(shares["p"])}
    assert stream(judged(shares, mixed, columns={"p": "confidence"}), "p").state == "ok"


def test_the_tolerance_is_what_is_forgiven() -> None:
    generator = np.random.default_rng(4)
    reference = {"x": generator.choice(["a", "b"], 50_000)}
    data = {"x": generator.choice(["a", "b"], 50_000, p=[0.55, 0.45])}
    assert judged(reference, data, tolerance=0.02).alarmed
    assert not judged(reference, data, tolerance=0.10).alarmed


def test_bursts_are_no_drift() -> None:
    generator = np.random.default_rng(6)
    sessions = np.repeat(generator.choice(["a", "b", "c", "d"], 3_000, p=[0.4, 0.3, 0.2, 0.1]), 20)
    reference = {"x": generator.choice(["a", "b", "c", "d"], 20_000, p=[0.4, 0.3, 0.2, 0.1])}
    report = judged(reference, {"x": sessions})
    assert stream(report, "x").state == "weak"
    assert stream(report, "x").detectable_shift == pytest.approx(0.166, abs=0.01)
    assert stream(report, "x").reason.startswith("its values come in bursts (φ ")
    assert (stream(report, "x").design_effect or 0.0) > 10.0


# ---------------------------------------------------------------- nothing without cause


ONE_VALUE = "its reference holds a single value, so it is not known how others come"


@pytest.mark.parametrize(
    ("reference", "data", "status", "why"),
    [
        pytest.param([5.0] * 2000, [5.0] * 3000, "weak", ONE_VALUE, id="constant"),
        pytest.param([0.0] * 2000, [0.0] * 3000, "weak", ONE_VALUE, id="zeros"),
        pytest.param([math.nan] * 2000, [math.nan] * 3000, "weak", ONE_VALUE, id="all missing"),
        pytest.param([], [1.0] * 3000, "unknown", "the reference has no values of it", id="empty reference"),
        pytest.param([1.0] * 2000, [], "unknown", "the data has no rows", id="empty data"),
        pytest.param(
            [3.0],
            np.arange(3000.0),
            "unknown",
            "the reference of 1 values is too small: no drift could be told from chance",
            id="one row of reference",
        ),
        pytest.param(
            np.arange(2000.0) + 0.5,
            [7.0],
            "unknown",
            "only 1 values are judged: no shift, however large, would be found in a day of this data",
            id="one row of data",
        ),
        pytest.param(
            ["x"],
            ["y"] * 3000,
            "unknown",
            "the reference of 1 values is too small: no drift could be told from chance",
            id="one word of reference",
        ),
    ],
)
def test_where_nothing_can_be_said_the_report_says_why(reference: Any, data: Any, status: str, why: str) -> None:
    entry = stream(judged({"x": reference}, {"x": data}), "x")
    assert (entry.state, entry.reason, entry.first_alarm_window) == (status, why, None)


def test_a_thousand_classes_are_no_alarm() -> None:
    generator = np.random.default_rng(7)
    shares = 1.0 / np.arange(1, 1001)
    shares /= shares.sum()
    labels = np.array([f"class {label}" for label in range(1000)])
    report = judged(
        {"x": generator.choice(labels, 10_000, p=shares)}, {"x": generator.choice(labels, 60_000, p=shares)}
    )
    entry = stream(report, "x")
    assert (entry.kind, entry.state, len(entry.bins)) == ("category", "ok", 52)
    rotated = {"x": generator.choice(np.roll(labels, 3), 10_000, p=shares)}
    assert judged({"x": generator.choice(labels, 10_000, p=shares)}, rotated).alarmed


def test_an_outlier_changes_nothing() -> None:
    reference, data = normal(10_000, seed=1), normal(20_000, seed=2)
    plain = judged({"x": reference}, {"x": data})
    data[5_000], data[7_000] = 1e30, -1e30
    wild = stream(judged({"x": reference}, {"x": data}), "x")
    assert (wild.state, wild.bins) == ("ok", stream(plain, "x").bins)
    reference[17] = 1e30
    assert stream(judged({"x": reference}, {"x": data}), "x").state == "ok"
    drifted = {"x": np.append(data + 1.0, 1e30)}
    assert stream(judged({"x": reference}, drifted), "x").first_alarm_window == 0


def test_the_last_window_is_judged_and_said_to_be_short() -> None:
    report = judged({"x": normal(5_000, seed=1)}, {"x": normal(2_300, seed=2)})
    assert [point.count for point in stream(report, "x").points] == [1000, 1000, 300]
    assert report.notes == ("The last window, 2, has only 300 rows; it is judged too.",)


# ---------------------------------------------------------------- time


def test_windows_of_time_in_the_order_of_time() -> None:
    start_s = 1_767_225_600
    times = np.arange(6_000) * 3.6 + start_s
    values = normal(6_000, seed=2)
    values[3_000:] += 1.0
    order = np.random.default_rng(8).permutation(6_000)
    request = BacktestRequest(reference="ref", data="data", window=WindowLength(time_s=3600.0), timestamp="at")
    data = table({"at": times[order], "x": values[order]})
    report = judged_tables(table({"x": normal(10_000, seed=1)}), data, request)
    entry = stream(report, "x")
    assert (report.windows, entry.first_alarm_window, entry.onset_window) == (6, 3, 3)
    assert (entry.first_alarm, report.false_alarms) == ("2026-01-01T03:59:56Z", "1 per 30d")
    assert report.notes[0].endswith("rows are judged in the order of time.")


def test_a_column_of_times_that_runs_back_says_nothing() -> None:
    born = np.array(["1980-05-01", "1970-01-01"] * 1000, dtype="datetime64[s]")
    report = judged({"x": normal(5_000, seed=1)}, {"born": born, "x": normal(2_000, seed=2)})
    assert (report.false_alarms, report.notes) == ("1 per 10000 windows", ())


def test_times_that_cannot_be_judged_do_not_date_the_rows() -> None:
    values = normal(2_000, seed=2)
    report = judged({"x": values}, {"until": ["2026-01-01"] * 1_999 + ["9999-12-31"], "x": values})
    assert (report.false_alarms, stream(report, "x").state) == ("1 per 10000 windows", "weak")


def test_time_that_is_not_there_cannot_be_asked_for() -> None:
    columns = {"x": normal(2_000, seed=1)}
    with pytest.raises(ConfigurationError, match="--false-alarms: `1 per 30d` needs --timestamp"):
        judged(columns, columns, budget=FalseAlarmBudget(rate=FalseAlarms(count=1.0, per_s=30 * 86400.0)))


# ---------------------------------------------------------------- files


def test_a_profile_is_a_reference(tmp_path: Path) -> None:
    generator = np.random.default_rng(9)
    profile = Profile.from_data(
        model="fraud",
        labels=generator.choice(["ham", "spam"], 5_000).tolist(),
        features={"age": normal(5_000, seed=1), "gone": normal(5_000, seed=2)},
    )
    profile.write_file(tmp_path / "fraud.reference.json")
    data = tmp_path / "data.csv"
    ages, labels = normal(4_000, seed=3, mean=1.0), generator.choice(["ham", "spam"], 4_000)
    data.write_text(
        "age,prediction,extra\n" + "".join(f"{age},{word},1\n" for age, word in zip(ages, labels, strict=True))
    )
    report = run_backtest(BacktestRequest(reference=str(tmp_path / "fraud.reference.json"), data=str(data)))
    assert {entry.stream: (entry.kind, entry.state, entry.reason) for entry in report.streams} == {
        "age": ("numeric", "alarm", ""),
        "prediction": ("label", "ok", ""),
        "gone": ("numeric", "left_out", "not in the data"),
        "extra": ("", "left_out", "not in the reference"),
    }


def test_csv_and_parquet_are_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pip install "otel-mlmon[backtest]"')
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"x": normal(3_000, seed=1).tolist(), "word": ["a", "b", "c"] * 1_000}
    for name in ("ref", "data"):
        parquet.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        rows = zip(*columns.values(), strict=True)
        (tmp_path / f"{name}.csv").write_text("x,word\n" + "".join(f"{x!r},{word}\n" for x, word in rows))
    csv, arrow = (
        run_backtest(BacktestRequest(reference=str(tmp_path / f"ref.{end}"), data=str(tmp_path / f"data.{end}")))
        for end in ("csv", "parquet")
    )
    assert csv.streams == arrow.streams


@pytest.mark.parametrize(
    ("reference", "data", "fault"),
    [
        ("nobody.csv", "data.csv", "nobody.csv: No such file or directory"),
        ("data.xls", "data.csv", "data.xls: a spreadsheet: save it as CSV"),
        ("data.csv", "words.csv", "words.csv:3: column 'x': 'many' is not a number, and its reference is numeric"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(tmp_path: Path, reference: str, data: str, fault: str) -> None:
    (tmp_path / "data.csv").write_text("x\n0.5\n1.5\n")
    (tmp_path / "words.csv").write_text("x\n0.5\nmany\n")
    (tmp_path / "data.xls").write_text("x")
    with pytest.raises((ConfigurationError, DataError)) as caught:
        run_backtest(BacktestRequest(reference=str(tmp_path / reference), data=str(tmp_path / data)))
    assert fault in str(caught.value)


def test_a_word_late_in_a_long_file_is_no_drift(tmp_path: Path) -> None:
    rows = [f"{code}.0\n" for code in np.random.default_rng(7).integers(0, 3, 45_000)]
    (tmp_path / "ref.csv").write_text("class\n" + "".join(rows[:20_000]))
    (tmp_path / "data.csv").write_text("class\n" + "".join([*rows[20_000:], "unheard of\n"]))
    report = run_backtest(BacktestRequest(reference=str(tmp_path / "ref.csv"), data=str(tmp_path / "data.csv")))
    assert [(entry.stream, entry.state) for entry in report.streams] == [("class", "ok")]


def test_rows_with_times_have_daily_cycles() -> None:
    """Ten days of ±.10 within a day against a reference of all hours: no alarm, and words for the cycle."""
    rng = np.random.default_rng(12)
    minutes = np.arange(10 * 1440 * 3) / 3.0
    share = 0.5 + 0.10 * np.sin(2.0 * np.pi * minutes / 1440.0)
    at = (np.datetime64("2026-01-05") + (minutes * 60_000).astype("timedelta64[ms]")).astype("datetime64[ms]")

    def draw(shares: NDArray[np.float64]) -> NDArray[Any]:
        return np.where(rng.random(shares.size) < shares, "a", "b")

    columns = {"at": at, "x": draw(share)}
    report = judged({"x": draw(np.full(20_000, 0.5))}, columns, rows=60)
    entry = stream(report, "x")
    assert (entry.state, entry.first_alarm_window) == ("ok", None)
    assert "Your traffic has a daily cycle (x): each time of the day is judged by itself." in report.notes
