"""Sends random rows to the model server until it is interrupted: `python traffic.py http://127.0.0.1:8000`."""

import json
import sys
import time
import urllib.request

import numpy as np

rng = np.random.default_rng()
while True:
    body = json.dumps({"rows": rng.normal(size=(20, 4)).round(4).tolist()}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{sys.argv[1]}/predict", body)) as answer:
        print(json.load(answer)["version"], end=" ", flush=True)
    time.sleep(0.2)
