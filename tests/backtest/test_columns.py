from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.backtest.columns import ColumnKind, choose_column_kinds
from otel_mlmon.errors import ConfigurationError
from tests.support.tables import normal, table

N = 1000
WHOLE = np.arange(N)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("car_value", normal(N, seed=1), "numeric"),
        ("proba", np.round(np.linspace(0, 1, N), 2), "numeric"),
        ("loan_length", WHOLE % 17, "category"),
        ("age", WHOLE % 80, "numeric"),
        ("salary_range", ["low", "high"] * (N // 2), "category"),
        ("truth", WHOLE % 2 == 0, "category"),
        ("constant", np.full(N, 7.0), "category"),
        ("nothing", np.full(N, np.nan), "numeric"),
        ("price", WHOLE * 3 + 5, "numeric"),
        ("thousand", [f"class {row % 400}" for row in range(N)], "category"),
        ("few", [1, 2, 3], "numeric"),
        ("one", ["x"], "category"),
        # left out
        ("id", WHOLE * 3 + 5, "ignore"),
        ("customer_id", WHOLE[::-1] * 7, "ignore"),
        ("position", WHOLE + 50_000, "ignore"),
        ("uuid", [f"{row:032x}" for row in range(N)], "ignore"),
        ("timestamp", ["2018-01-01 00:00:00.000"] * N, "ignore"),
        ("day", ["2018-01-01", "2018-01-02"] * (N // 2), "ignore"),
        ("event_time", 1.7e9 + normal(N, seed=2), "ignore"),
        ("when", np.array(["2026-01-01"] * N, dtype="datetime64[s]"), "ignore"),
    ],
)
def test_the_kind_of_a_column(name: str, values: NDArray[Any] | Sequence[object], kind: str) -> None:
    chosen = choose_column_kinds(table({name: values}), {}, timestamp=None)
    assert chosen[name].kind == kind
    assert bool(chosen[name].reason) is (kind == "ignore")


def test_what_the_user_says_goes_before() -> None:
    columns = {"id": WHOLE, "score": WHOLE % 7 / 6, "class": WHOLE % 3, "other": WHOLE % 3}
    chosen = choose_column_kinds(
        table(columns), {"id": "numeric", "score": "confidence", "class": "label", "other": "ignore"}, timestamp=None
    )
    assert {name: choice.stream_name for name, choice in chosen.items()} == {
        "id": "input.id",
        "score": "prediction.confidence",
        "class": "prediction.label",
        "other": "input.other",
    }
    assert chosen["other"].reason == "ignored by --columns"


def test_all_faults_are_told_at_once() -> None:
    columns = {"a": ["x", "y"], "b": ["1", "z"], "c": ["1", "z"]}
    with pytest.raises(ConfigurationError) as caught:
        choose_column_kinds(
            table(columns), {"nobody": "numeric", "a": "numeric", "b": "label", "c": "label"}, timestamp=None
        )
    assert caught.value.faults == (
        "memory: there is no column 'nobody'",
        "row 0: column 'a': 'x' is not a number",
        "--columns: b and c cannot both be the label (prediction.label)",
    )


@pytest.mark.parametrize(
    ("requested", "kinds"),
    [
        ({}, ("label", "value")),
        ({"score": "confidence"}, ("label", "confidence")),
        ({"y_pred": "category"}, ("category", "value")),
        ({"y_pred": "ignore", "score": "numeric"}, ("ignore", "numeric")),
    ],
)
def test_names_of_predictions_are_a_guess_that_the_user_overrules(
    requested: dict[str, ColumnKind], kinds: tuple[str, str]
) -> None:
    columns = table({"y_pred": WHOLE % 3, "score": normal(N, seed=1) / 100 + 0.5})
    chosen = choose_column_kinds(columns, requested, timestamp=None)
    assert (chosen["y_pred"].kind, chosen["score"].kind) == kinds
    assert (chosen["y_pred"].is_guess, chosen["score"].is_guess) == (
        "y_pred" not in requested,
        "score" not in requested,
    )
