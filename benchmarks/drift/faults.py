"""The table of faults injected into a table, one at a time, judged by a backtest as a user runs it.

The rows are NannyML's car loans before their drift, in random order: a half is the reference, the other the data, in
windows of 1,000 with a fault from window 12 on. Two columns are added: an hour of the day, and nothing but noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.accuracy_chunks import nannyml_folder
from benchmarks.drift.results import recall

if TYPE_CHECKING:
    import pandas as pd

ROWS: Final = 25_000
WINDOW: Final = 1_000
FAULT_WINDOW: Final = 12
MANY: Final = 100

Rng = np.random.Generator
Damage = Callable[["pd.DataFrame", Rng], None]
"""Changes the rows of a table in place."""


class Fault(NamedTuple):
    """One fault."""

    name: str
    column: str
    """Where it shows; empty if it does not show in the distribution of any column."""
    damage: Damage
    is_from_start: bool = False
    recurs: bool = False
    has_many_columns: bool = False


def _set(column: str, change: Callable[[Any, Rng], Any]) -> Damage:
    def damage(rows: pd.DataFrame, rng: Rng) -> None:
        rows[column] = change(rows[column], rng)

    return damage


def _scatter(column: str, share: float, change: Callable[[Any], Any]) -> Damage:
    """Changes a random share of the cells of a column."""

    def damage(rows: pd.DataFrame, rng: Rng) -> None:
        rows[column] = rows[column].where(rng.random(len(rows)) >= share, change(rows[column]))

    return damage


def _creep(column: str, share: float) -> Damage:
    """Loses more and more of the cells, `share` of the last ones."""

    def damage(rows: pd.DataFrame, rng: Rng) -> None:
        rows[column] = rows[column].where(rng.random(len(rows)) >= share * np.linspace(0.0, 1.0, len(rows)))

    return damage


def _resample(column: str, strength: float) -> Damage:
    """Draws rows again, by weights that grow with a column."""

    def damage(rows: pd.DataFrame, rng: Rng) -> None:
        value = rows[column].astype(float)
        weights = np.exp(strength * (value - value.mean()) / value.std()).to_numpy()
        chosen = rng.choice(len(rows), len(rows), p=weights / weights.sum())
        _take(rows, chosen)

    return damage


def _take(rows: pd.DataFrame, chosen: NDArray[np.intp]) -> None:
    for column in rows.columns:
        rows[column] = rows[column].array.take(chosen)


def _swap(first: str, second: str) -> Damage:
    def damage(rows: pd.DataFrame, _rng: Rng) -> None:
        rows[first], rows[second] = rows[second].copy(), rows[first].copy()

    return damage


def _repeat(rows: pd.DataFrame, _rng: Rng) -> None:
    _take(rows, np.arange(len(rows)) // 2)


def _break_correlation(rows: pd.DataFrame, rng: Rng) -> None:
    rows["car_value"] = rng.permutation(rows["car_value"].to_numpy())


def _shift(column: str, deviations: float) -> Damage:
    return _set(column, lambda cells, _: cells + deviations * cells.std())


def _spread(column: str, factor: float) -> Damage:
    return _set(column, lambda cells, _: cells.mean() + factor**0.5 * (cells - cells.mean()))


FAULTS: Final = (
    Fault("control: no fault", "", lambda _rows, _rng: None),
    Fault("rows with expensive cars more often", "car_value", _resample("car_value", 0.5)),
    Fault("repaid before: five points more", "repaid_loan_on_prev_car", _scatter(
        "repaid_loan_on_prev_car", 0.11, lambda _: "True")),
    Fault("repaid before: 13 points more", "repaid_loan_on_prev_car", _scatter(
        "repaid_loan_on_prev_car", 0.29, lambda _: "True")),
    Fault("another unit", "car_value", _set("car_value", lambda cells, _: cells / 2.54)),
    Fault("a constant column", "driver_tenure", _set("driver_tenure", lambda cells, _: cells.median())),
    Fault("nulls 1 %", "driver_tenure", _scatter("driver_tenure", 0.01, lambda _: np.nan)),
    Fault("nulls 3 %", "driver_tenure", _scatter("driver_tenure", 0.03, lambda _: np.nan)),
    Fault("nulls creep to 3 %", "driver_tenure", _creep("driver_tenure", 0.03)),
    Fault("nulls creep to 10 %", "driver_tenure", _creep("driver_tenure", 0.10)),
    Fault("a category is renamed", "salary_range", _set(
        "salary_range", lambda cells, _: cells.replace("40K - 60K €", "40-60K"))),
    Fault("a new category, 3 %", "salary_range", _scatter("salary_range", 0.03, lambda _: "unknown")),
    Fault("values × 1e5 in 1 %", "debt_to_income_ratio", _scatter(
        "debt_to_income_ratio", 0.01, lambda cells: cells * 1e5)),
    Fault("values × 1e6 in all", "debt_to_income_ratio", _set("debt_to_income_ratio", lambda cells, _: cells * 1e6)),
    Fault("variance × 1.1", "noise", _spread("noise", 1.1)),
    Fault("variance × 1.5", "noise", _spread("noise", 1.5)),
    Fault("mean + .25 sd", "noise", _shift("noise", 0.25)),
    Fault("mean + .5 sd", "noise", _shift("noise", 0.5)),
    Fault("mean + .25 sd in one of 100 features", "noise", _shift("noise", 0.25), has_many_columns=True),
    Fault("another time zone, three hours", "hour", _set("hour", lambda cells, _: (cells + 3.0) % 24.0)),
    Fault("two columns swapped", "driver_tenure", _swap("driver_tenure", "debt_to_income_ratio")),
    Fault("every row twice", "", _repeat),
    Fault("10 % set to 0", "loan_length", _scatter("loan_length", 0.10, lambda _: 0.0)),
    Fault("sign flipped in 5 %", "driver_tenure", _scatter("driver_tenure", 0.05, lambda cells: -cells)),
    Fault("rounded to whole numbers", "driver_tenure", _set("driver_tenure", lambda cells, _: cells.round())),
    Fault("cut at the 90th percentile", "car_value", _set(
        "car_value", lambda cells, _: cells.clip(upper=cells.quantile(0.9)))),
    Fault("correlation broken, columns kept", "", _break_correlation),
    Fault("two categories exchanged", "salary_range", _set("salary_range", lambda cells, _: cells.replace(
        {"40K - 60K €": "0 - 20K €", "0 - 20K €": "40K - 60K €"}))),
    Fault("10 % collapse in probability", "y_pred_proba", _scatter("y_pred_proba", 0.10, lambda _: 0.5)),
    Fault("drift that comes and goes", "noise", _shift("noise", 0.5), recurs=True),
    Fault("drift from the first row on", "noise", _shift("noise", 0.5), is_from_start=True),
)  # fmt: skip


@lru_cache(maxsize=1)
def load_rows() -> pd.DataFrame:
    """Reads the car loans before their drift."""
    import pandas as pd

    rows = pd.read_csv(nannyml_folder() / "synthetic_car_loan_reference.csv")
    return rows.drop(columns=["id", "timestamp", "repaid", "y_pred"]).astype({"repaid_loan_on_prev_car": str})


def judge_fault(fault: Fault, seed: int) -> dict[str, Any]:
    """Runs the backtest of one fault; returns the window of the alarm, and the columns that alarmed wrongly."""
    import pandas as pd

    from otel_mlmon.backtest import run

    rng = np.random.default_rng([seed, sum(fault.name.encode())])
    rows = load_rows().sample(frac=1.0, random_state=int(rng.integers(1 << 31))).reset_index(drop=True)
    rows["hour"] = (13.0 + 4.0 * rng.normal(size=len(rows))) % 24.0
    rows["noise"] = rng.normal(size=len(rows))
    for number in range(MANY - rows.shape[1] if fault.has_many_columns else 0):
        rows[f"noise {number}"] = rng.normal(size=len(rows))
    reference, data = rows.iloc[:ROWS].copy(), rows.iloc[ROWS : 2 * ROWS].reset_index(drop=True)
    start = 0 if fault.is_from_start else FAULT_WINDOW * WINDOW
    damaged = data.iloc[start:].copy()
    fault.damage(damaged, rng)
    is_faulty = np.arange(len(data)) >= start
    if fault.recurs:
        is_faulty &= np.arange(len(data)) // (3 * WINDOW) % 2 == 0
    for column in data.columns:
        cells = pd.concat([data[column].iloc[:start], damaged[column]], ignore_index=True)
        data[column] = cells.where(is_faulty, data[column])
    report = run(reference, data, window=WINDOW).report
    alarms = {stream.stream: stream.first_alarm_window for stream in report.alarmed}
    first = 0 if fault.is_from_start else FAULT_WINDOW
    affected = {fault.column} | ({"debt_to_income_ratio"} if "swapped" in fault.name else set())
    if "more often" in fault.name:
        affected = set(alarms)  # who draws other rows changes what goes with them
    wrong = [name for name, window in alarms.items() if name not in affected or (window or 0) < first]
    found = alarms.get(fault.column)
    return {"found": None if found is None or found < first else found - first, "wrong": wrong}


def injected_faults(seed: int, scale: float) -> Iterator[str]:
    """One fault at a time: found in which window, and what else alarmed."""
    repeats = max(1, round(4 * scale))
    yield f"{len(FAULTS)} runs of {ROWS // WINDOW} windows of {WINDOW:,} rows, {repeats} draws of each, seed {seed}:"
    yield "windows from the fault to the alarm, and columns that alarmed without a fault."
    yield ""
    yield "| fault | column | found | windows | other columns |"
    yield "|---|---|--:|--:|---|"
    visible = hits = 0
    for fault in FAULTS:
        rows = [
            recall(("fault", fault.name, draw), partial(judge_fault, fault, draw))
            for draw in range(seed, seed + repeats)
        ]
        delays = [row["found"] for row in rows if row["found"] is not None]
        wrong = sorted({name for row in rows for name in row["wrong"]})
        if fault.column:
            visible, hits = visible + repeats, hits + len(delays)
        found = f"{len(delays)} of {repeats}" if fault.column else "shows in no column"
        windows, others = ", ".join(map(str, delays)) or "–", ", ".join(wrong) or "–"
        yield f"| {fault.name} | {fault.column or '–'} | {found} | {windows} | {others} |"
    yield ""
    yield f"Found {hits} of {visible} that show in a column."
