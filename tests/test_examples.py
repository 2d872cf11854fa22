"""Every example runs, ends by itself, and says what it did."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_mlmon.testing import capture
from tests.support.ports import free_port
from tests.support.processes import environment, run_python, until
from tests.support.sentry_endpoint import endpoint

EXAMPLES = Path(__file__).parent.parent / "examples"
OBSERVE = Path(__file__).parent.parent / "docs" / "observe.md"


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "observe_sklearn.py", "observe_torch.py", "observe_xgboost.py", "one_line.py", "sentry_fastapi.py",
        "webhook.py",
    }  # fmt: skip


def test_one_line(tmp_path: Path) -> None:
    done = run_python([str(EXAMPLES / "one_line.py")], cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, "100 inferences, measured.\n")


@pytest.mark.parametrize(
    ("name", "module", "package", "model", "calls", "rows", "outputs"),
    [
        ("observe_sklearn.py", "sklearn", "scikit-learn", "iris", 150, 150, {"setosa", "versicolor", "virginica"}),
        ("observe_xgboost.py", "xgboost", "xgboost", "progression", 2, 400, {"value"}),
        ("observe_torch.py", "torch", "torch", "net", 100, 100, {"ant", "bee", "cow"}),
    ],
)
def test_observe(
    name: str,
    module: str,
    package: str,
    model: str,
    calls: int,
    rows: int,
    outputs: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(module, reason=f"pip install {package}", exc_type=ImportError)
    with capture() as captured:  # the example's own `instrument()` finds that this one was there before
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        captured.flush()
        metrics = captured.metrics()
        spans = [dict(span.attributes or {}) for span in captured.spans]
    assert capsys.readouterr().out.endswith(", reported.\n")
    assert len(spans) == calls
    version = importlib.import_module(module).__version__
    for span in spans:
        assert (span["ml.model.name"], span["ml.model.version"], span["ml.operation.name"]) == (model, "1", "observe")
        assert (span["ml.runtime.name"], span["ml.runtime.version"]) == (module, version)
    kind, key = (
        ("ml.prediction.value", "ml.output.name") if len(outputs) == 1 else ("ml.predictions", "ml.prediction.label")
    )
    points: list[Any] = list(metrics[kind].data.data_points)
    assert {point.attributes[key] for point in points} <= outputs
    assert sum(getattr(point, "count", getattr(point, "value", 0)) for point in points) == rows
    (samples,) = metrics["ml.input.samples"].data.data_points
    assert samples.value == rows  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("heading", "module", "calls"),
    [
        ("scikit-learn", "sklearn", 150),
        ("XGBoost", "xgboost", 1),
        ("PyTorch", "torch", 100),
        ("Without a block", "", 1),
    ],
)
def test_the_page_on_observe(heading: str, module: str, calls: int) -> None:
    if module:
        pytest.importorskip(module, reason=f"pip install {module}", exc_type=ImportError)
    section = OBSERVE.read_text(encoding="utf-8").split(f"## {heading}\n")[1]
    with capture() as captured:
        exec(section.split("```python\n")[1].split("```")[0], {})
        captured.flush()
        assert captured.handle.status().recorded_calls == calls


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
