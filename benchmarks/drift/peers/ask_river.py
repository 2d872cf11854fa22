"""ADWIN on a confidence that falls."""

import json
import random
import sys

from river.drift import ADWIN

question = json.load(sys.stdin)
rng = random.Random(question["seed"])
runs = min(question["runs"], 100)
answers = {}
for fall in (0.0, 0.01, 0.03, 0.05, 0.10, 0.30):
    delays, missed, early = [], 0, 0
    for _ in range(runs):
        detector, found = ADWIN(), None
        mean = 0.9
        for item in range(25_000):
            if item == 5_000:
                mean = 0.9 - fall
            a = mean / (1.0 - mean)
            detector.update(rng.random() ** (1.0 / a))
            if detector.drift_detected:
                if item < 5_000:
                    early += 1
                else:
                    found = item - 4_999
                    break
        missed += found is None
        if found is not None:
            delays.append(found)
    if fall:
        mean_delay = f"{sum(delays) / len(delays):.0f}" if delays else "–"
        answers[f"ADWIN (defaults), confidence Beta(9,1), mean falls by {fall}: items / missed in 20,000"] = (
            f"{mean_delay} / {missed / runs:.2g}"
        )
    else:
        answers["ADWIN (defaults), confidence without drift: alarms in 25,000 items, share of runs"] = (
            f"{(runs - missed + early) / runs:.2g}"
        )
print(json.dumps(answers))
