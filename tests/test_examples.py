"""Every example runs, ends by itself, and says what it did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.processes import environment, free_port, run_python, until
from tests.support.sentry_endpoint import endpoint

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"one_line.py", "sentry_fastapi.py", "webhook.py"}


def test_one_line(tmp_path: Path) -> None:
    done = run_python([str(EXAMPLES / "one_line.py")], cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, "100 inferences, measured.\n")


def test_webhook() -> None:
    child = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "webhook.py"), "0"], stdout=subprocess.PIPE, env=environment(), text=True
    )
    with child:
        assert child.stdout is not None
        port = int(child.stdout.readline().removeprefix("Listening on port ").rstrip(".\n"))
        answer = httpx.post(f"http://127.0.0.1:{port}/", content=json.dumps({"text": "FIRING · digits"}))
        assert answer.status_code == 204
        assert child.wait(timeout=20) == 0
        assert child.stdout.read() == "FIRING · digits\n"


def test_sentry_fastapi() -> None:
    """The application's Sentry has no tracing; the one line shows a request's inference in its transaction."""
    port = free_port()
    with endpoint() as sentry:
        host = environment(SENTRY_DSN=sentry.dsn, OTEL_MLMON_SENTRY_TRACES_SAMPLE_RATE="1", OTEL_SDK_DISABLED="false")
        host |= {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
        child = subprocess.Popen([sys.executable, str(EXAMPLES / "sentry_fastapi.py"), str(port)], env=host)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _answers(f"{url}/health"))
            answer = httpx.post(f"{url}/predict", json=[[0.5] * 8] * 8).json()
            assert set(answer) == {"digit", "confidence"}
            assert httpx.post(f"{url}/predict", json=[[0.5] * 8] * 7).status_code == 500
            good, bad = sentry.wait("transaction", 2, where=lambda event: event["transaction"] == "/predict")
            (error,) = sentry.wait("event")
        finally:
            child.terminate()
            child.wait(timeout=20)
    (span,) = [span for span in good["spans"] if span["op"] == "ml.predict"]
    assert (span["description"], span["status"]) == ("predict digits", "ok")
    assert span["data"]["ml.prediction.label"] == answer["digit"]
    (failed,) = [span for span in bad["spans"] if span["op"] == "ml.predict"]
    assert failed["status"] == "internal_error"
    assert error["tags"]["ml.model.name"] == "digits"
    assert error["contexts"]["trace"]["trace_id"] == failed["trace_id"]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False
