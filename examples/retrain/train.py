"""The job: put your training here. It reads the alert from its standard input, and says what it would train on."""

import json
import sys

alert = json.load(sys.stdin)
streams = ", ".join(cause["stream"] for cause in alert["causes"])
print(f"Training {alert['model']} anew: {streams} moved since {alert['onset_ns']}.", flush=True)
