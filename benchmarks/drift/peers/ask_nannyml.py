"""The univariate calculator with its defaults on windows of labels."""

import json
import sys

import nannyml
import numpy as np
import pandas as pd

question = json.load(sys.stdin)
rng = np.random.default_rng(question["seed"])
runs = min(question["runs"], 30)
answers = {}


def labels(items: int, shares: list[float]) -> pd.DataFrame:
    """One column of classes."""
    return pd.DataFrame({"label": pd.Categorical(rng.choice(list("abcd"), p=shares, size=items))})


for move in (0.0, 0.1):
    any_alarm, windows = 0, 0
    for _ in range(runs):
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=["label"], treat_as_categorical=["label"], chunk_size=1_000
        )
        calculator.fit(labels(10_000, [0.4, 0.3, 0.2, 0.1]))
        data = (
            calculator.calculate(labels(20_000, [0.4 - move, 0.3 + move, 0.2, 0.1])).filter(period="analysis").to_df()
        )
        alerts = data["label"]["jensen_shannon"]["alert"].to_numpy(bool)
        any_alarm += bool(alerts.any())
        windows += int(alerts.sum())
    what = f"TV {move}" if move else "no drift"
    answers[f"UnivariateDriftCalculator (JS, mean + 3 sd of 10 chunks), windows of 1,000, {what}: windows in alarm; "
            "runs with any of 20"] = f"{windows / runs / 20:.2g}; {any_alarm / runs:.2g}"  # fmt: skip
print(json.dumps(answers))
