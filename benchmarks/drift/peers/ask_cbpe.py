"""Confidence-based performance estimation of chunks whose accuracy is known."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nannyml
import numpy as np
import pandas as pd

question = json.load(sys.stdin)
errors, covered = [], []
for file in sorted(Path(question["folder"]).glob("*.npz")):
    pool = np.load(file)
    classes = pool["reference_proba"].shape[1]
    names = [f"proba_{label}" for label in range(classes)]

    def frame(proba: Any, labels: Any, classes: int = classes, names: Sequence[str] = tuple(names)) -> pd.DataFrame:
        """Returns predictions as NannyML expects them."""
        table = pd.DataFrame(proba, columns=list(names))
        table["y_pred"] = proba.argmax(1)
        table["y_true"] = labels
        return table if classes == 2 else table.astype({"y_pred": str, "y_true": str})

    is_binary = classes == 2
    estimator = nannyml.CBPE(
        y_pred_proba="proba_1" if is_binary else {str(label): name for label, name in enumerate(names)},
        y_pred="y_pred", y_true="y_true", metrics=["accuracy"], chunk_size=int(pool["chunk"]),
        problem_type="classification_binary" if is_binary else "classification_multiclass",
    )  # fmt: skip
    try:
        estimator.fit(frame(pool["reference_proba"], pool["reference_labels"]))
        table = frame(pool["proba"], pool["labels"])
        result = estimator.estimate(table.drop(columns="y_true")).filter(period="analysis").to_df()["accuracy"]
    except Exception as error:
        print(file.name, repr(error)[:200], file=sys.stderr)
        continue
    truth = (pool["proba"].argmax(1) == pool["labels"]).reshape(-1, int(pool["chunk"])).mean(1)
    estimated = result["value"].to_numpy()[: truth.size]
    low, high = (result[f"{side}_confidence_boundary"].to_numpy()[: truth.size] for side in ("lower", "upper"))
    errors += np.abs(estimated - truth).tolist()
    covered += ((low <= truth) & (truth <= high)).tolist()
print(json.dumps({"mae": float(np.mean(errors)), "covered": float(np.mean(covered)), "n": len(errors)}))
