"""ChiSquareDrift on windows of labels without drift."""

import json
import sys

import numpy as np
from alibi_detect.cd import ChiSquareDrift

question = json.load(sys.stdin)
rng = np.random.default_rng(question["seed"])
runs = question["runs"]
answers = {}
for items in (500, 1_000):
    found = 0
    for _ in range(runs):
        reference = rng.choice(4, p=[0.4, 0.3, 0.2, 0.1], size=(10_000, 1))
        detector = ChiSquareDrift(reference, p_val=0.05)
        current = rng.choice(4, p=[0.4, 0.3, 0.2, 0.1], size=(items, 1))
        found += int(detector.predict(current)["data"]["is_drift"])
    answers[f"ChiSquareDrift p<.05, windows of {items:,} without drift: share of windows in alarm"] = (
        f"{found / runs:.2g}"
    )
print(json.dumps(answers))
