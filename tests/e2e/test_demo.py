"""The demo as a user runs it: two processes, OTLP between them, and a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_the_demo_sees_what_happens_and_nothing_else() -> None:
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "otel_mlmon", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    elapsed_s = time.monotonic() - began_s
    document = json.loads(done.stdout)
    assert (done.returncode, document["passed"], document["problems"], done.stderr) == (0, True, [], "")
    assert elapsed_s < 60
    alerts = {alert["rule"]: alert for alert in document["expected_alerts"]}
    assert set(alerts) == {"prediction_drift", "data_drift", "confidence"}
    assert all(0 < alert["fired_after_s"] < alert["resolved_after_s"] for alert in alerts.values())
    assert [act["act"] for act in document["acts"]] == ["learning", "calm", "shift", "recovery"]
    assert 0 < document["model"]["predictions"] <= document["served"]
