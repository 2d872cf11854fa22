"""The default drift preset on windows of labels without drift."""

import json
import sys

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

question = json.load(sys.stdin)
rng = np.random.default_rng(question["seed"])
runs = min(question["runs"], 60)
answers = {}


def labels(items: int, shares: list[float]) -> pd.DataFrame:
    """One column of classes, as text."""
    return pd.DataFrame({"label": rng.choice(list("abcd"), p=shares, size=items)})


def is_drift(reference: pd.DataFrame, current: pd.DataFrame) -> bool:
    """What the preset says of the only column."""
    result = Report([DataDriftPreset()]).run(current, reference).dict()
    share = next(metric["value"] for metric in result["metrics"] if "DriftedColumns" in str(metric))
    return bool(share["count"] > 0)


for reference_items, items, move in (
    (1_000, 1_000, 0.0),
    (1_000, 10_000, 0.0),
    (10_000, 10_000, 0.0),
    (10_000, 10_000, 0.1),
):
    found = 0
    for _ in range(runs):
        reference = labels(reference_items, [0.4, 0.3, 0.2, 0.1])
        found += is_drift(reference, labels(items, [0.4 - move, 0.3 + move, 0.2, 0.1]))
    what = f"TV {move}" if move else "no drift"
    answers[f"DataDriftPreset, reference {reference_items:,}, window {items:,}, {what}: share of windows in alarm"] = (
        f"{found / runs:.2g}"
    )
print(json.dumps(answers))
