from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

import otel_mlmon.backtest
from otel_mlmon.backtest.result import BacktestResult
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile


def frame(rows: int, *, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Rows of every kind; from the middle on `amount` is shifted."""
    generator = np.random.default_rng(seed)
    amount = np.round(generator.normal(5, 1, rows), 3)
    amount[rows // 2 :] += shift
    amount[::50] = np.nan
    return pd.DataFrame(
        {
            "at": pd.date_range("2026-01-01", periods=rows, freq="s"),
            "amount": amount,
            "region": generator.choice(["a", "b", "NA", "05"], rows),
            "steps": generator.integers(0, 6, rows),
            "is_new": generator.random(rows) < 0.3,
            "score": np.round(generator.beta(3, 2, rows), 4),
        }
    )


REFERENCE, DATA = frame(8_000, seed=1), frame(6_000, seed=2, shift=1.0)


@pytest.fixture(scope="module")
def drifted() -> BacktestResult:
    return otel_mlmon.backtest.run(REFERENCE, DATA, timestamp="at")


def test_every_source_of_the_same_rows_gives_the_same_json(tmp_path: Path, drifted: BacktestResult) -> None:
    DATA.to_csv(tmp_path / "a.csv", index=False)
    DATA.to_csv(tmp_path / "a.tsv.gz", index=False, sep="\t")
    DATA.to_json(tmp_path / "a.jsonl", orient="records", lines=True, date_format="iso")
    parquet.write_table(pa.Table.from_pandas(DATA, preserve_index=False), tmp_path / "a.parquet", row_group_size=700)
    for number, start in enumerate(range(0, len(DATA), 1_300)):
        part = DATA.iloc[start : start + 1_300]
        (tmp_path / "parts").mkdir(exist_ok=True)
        part.to_csv(tmp_path / f"parts/{number}.csv", index=False)
    REFERENCE.to_csv(tmp_path / "ref.csv", index=False)
    sources = {
        "polars": pl.from_pandas(DATA),
        "Arrow": pa.Table.from_pandas(DATA, preserve_index=False),
        "CSV": tmp_path / "a.csv",
        "TSV": tmp_path / "a.tsv.gz",
        "JSON": tmp_path / "a.jsonl",
        "Parquet": str(tmp_path / "a.parquet"),
        "folder": tmp_path / "parts",
        "pattern": f"{tmp_path}/parts/*.csv",
    }
    expected = {**drifted.to_dict(), "reference": "", "data": ""}
    # The two tables are read by themselves: the other source of a reference is tried once.
    pairs = [(REFERENCE, name) for name in sources] + [(tmp_path / "ref.csv", "CSV")]
    for reference, name in pairs:
        document = otel_mlmon.backtest.run(reference, sources[name], timestamp="at").to_dict()
        assert {**document, "reference": "", "data": ""} == expected, name


@pytest.mark.parametrize("window", [700, "20m"])
def test_rows_out_of_order_are_judged_as_if_they_were_in_order(window: int | str) -> None:
    ordered = otel_mlmon.backtest.run(REFERENCE, DATA, timestamp="at", window=window).to_dict()
    shuffled = DATA.sample(frac=1, random_state=1)
    report = otel_mlmon.backtest.run(REFERENCE, shuffled, timestamp="at", window=window).to_dict()
    note = report["notes"][0]
    assert re.fullmatch(r"\d+ rows stood before an earlier one; rows are judged in the order of time\.", note)
    assert {**report, "notes": report["notes"][1:]} == ordered


def test_a_notebook_shows_the_pictures_in_a_frame_of_their_own(drifted: BacktestResult) -> None:
    html = drifted._repr_html_()
    assert html.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert html.count("&lt;svg") > 10
    assert "<svg" not in html


def test_printed_it_is_the_table(drifted: BacktestResult, tmp_path: Path) -> None:
    first = str(drifted).splitlines()[0]
    assert first == "It would have alerted, first in window 3 (2026-01-01T01:06:39Z): amount."
    drifted.write_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (drifted["amount"].state, [stream.stream for stream in drifted.alarmed]) == ("alarm", ["amount"])
    with pytest.raises(KeyError):
        drifted["nobody"]


def test_columns_named_like_predictions_are_taken_for_them_and_said(drifted: BacktestResult) -> None:
    assert (drifted["score"].kind, drifted["score"].tolerance) == ("value", 0.02)
    assert drifted.report.notes == (
        "By their names, columns are taken for the model's predictions: score for its values; --columns overrules.",
    )
    overruled = otel_mlmon.backtest.run(REFERENCE, DATA, columns={"score": "numeric"})
    assert overruled["score"].kind == "numeric"
    falling = DATA.assign(score=1 - DATA["score"])
    rising = DATA.assign(score=np.sqrt(DATA["score"]))
    for data in (falling, rising):  # a value may move either way
        assert otel_mlmon.backtest.run(REFERENCE, data)["score"].state == "alarm"


def test_a_profile_is_a_reference_too() -> None:
    profile = Profile.from_data(model="m", features={"amount": REFERENCE["amount"].to_numpy()})
    result = otel_mlmon.backtest.run(profile, DATA, require=["amount"])
    assert (result["amount"].state, result.unjudged) == ("alarm", ())


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"window": "soon"}, "--window: 'soon' is neither rows, such as 1000, nor a time, such as 1h"),
        ({"tolerance": 2}, "--tolerance: '2' must be a ratio within 0% and 100%"),
        ({"decimal": ";"}, "--decimal: ';' is neither . nor ,"),
        ({"require": ["nobody"]}, "--require: there is no column 'nobody'"),
        ({"timestamp": "nobody"}, "data (pandas): there is no column 'nobody' for --timestamp"),
        ({"timestamp": "region"}, "data (pandas): column 'region': "),
    ],
)
def test_what_cannot_be_done_is_a_sentence(arguments: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        otel_mlmon.backtest.run(REFERENCE, DATA, **arguments)  # type: ignore[arg-type]
    assert fault in str(caught.value).replace("row 0", "data (pandas)")


@pytest.mark.parametrize("rows", [300, 999, 1_000, 1_010, 1_400, 2_000])
def test_no_row_is_spent(rows: int) -> None:
    """All rows are shifted: they are an alarm, however few, since the reference says how they vary."""
    data = frame(rows, seed=3).assign(amount=9.0, region="a")
    states = {name: otel_mlmon.backtest.run(REFERENCE, data)[name].state for name in ("amount", "region")}
    assert set(states.values()) == {"alarm"}


def test_a_drift_of_the_first_rows_alone_is_seen() -> None:
    data = DATA[["amount"]].copy()
    data["amount"] = REFERENCE["amount"].to_numpy()[: len(data)]
    data.loc[:899, "amount"] = 9.0
    result = otel_mlmon.backtest.run(REFERENCE[["amount"]], data)
    assert (result["amount"].first_alarm_window, result["amount"].state) == (0, "recovered")
