"""Every example runs, ends by itself, and says what it did."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_mlmon.processor.alert.alert import Alert, RuleState
from otel_mlmon.processor.alert.document import encode_alert
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.notify.notifier import PermanentError
from otel_mlmon.processor.notify.webhook import WebhookNotifier
from otel_mlmon.testing import capture
from tests.support.alerts import FIRING
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
    assert {path.parent.name for path in EXAMPLES.glob("*/README.md")} == {"rollback", "retrain"}


def test_one_line(tmp_path: Path) -> None:
    done = run_python([str(EXAMPLES / "one_line.py")], cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, "100 inferences, measured.\n")


@pytest.mark.parametrize(
    ("name", "module", "package", "model", "calls", "rows", "outputs"),
    [
        ("observe_sklearn.py", "sklearn", "scikit-learn", "iris", 150, 150, {"setosa", "versicolor", "virginica"}),
        ("observe_xgboost.py", "xgboost", "xgboost", "progression", 2, 400, set()),
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
    points: list[Any] = list(metrics["ml.predictions" if outputs else "ml.prediction.value"].data.data_points)
    assert {point.attributes.get("ml.prediction.label") for point in points} <= (outputs or {None})  # type: ignore[arg-type]
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


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of examples/rollback."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "rollback"))
    return importlib.import_module(name)


NOW_S = 1_763_820_000.0
POINTER = {"version": "2", "previous": "1", "deployed_s": NOW_S - 100.0}
DRIFT = replace(FIRING, version="2", rule="version_drift", onset_ns=round((NOW_S - 50.0) * 1e9))
FAILING = replace(DRIFT, rule="errors")


@pytest.mark.parametrize(
    ("alert", "current", "reason"),
    [
        (DRIFT, POINTER, ""),
        (FAILING, POINTER, ""),
        (replace(DRIFT, previous=RuleState.FIRING), POINTER, "version_drift is firing, and no new alert"),
        (replace(DRIFT, is_test=True), POINTER, "this is a test"),
        (replace(DRIFT, state=RuleState.OK), POINTER, "version_drift is ok, and no new alert"),
        (replace(DRIFT, rule="latency"), POINTER, "latency is nothing that another version would mend"),
        (replace(DRIFT, version="1"), POINTER, "version 1 is not in service"),
        (DRIFT, {}, "version 2 is not in service"),
        (DRIFT, {**POINTER, "previous": None}, "there is no version before"),
        (FAILING, {**POINTER, "deployed_s": NOW_S - 3600.0}, "the errors did not begin with the deploy"),
        (FAILING, {**POINTER, "deployed_s": NOW_S}, "the errors did not begin with the deploy"),
        (DRIFT, {**POINTER, "taken_back": ["1"]}, "version 1 was taken back itself"),
        (DRIFT, {**POINTER, "rolled_back_s": time.time()}, "a version was taken back a short while ago"),
    ],
)
def test_when_a_version_is_rolled_back(
    alert: Alert, current: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = example("roll_back", monkeypatch).decide
    told = decide(json.loads(encode_alert(alert)), current, errors_within_s=1800.0, cool_down_s=3600.0)
    assert told.startswith(reason)
    assert bool(told) is bool(reason)


def test_a_version_is_rolled_back_once_and_a_pointer_that_cannot_be_changed_is_tried_again(tmp_path: Path) -> None:
    pointer = tmp_path / "current.json"
    command = [sys.executable, str(EXAMPLES / "rollback" / "roll_back.py"), str(pointer)]

    def run() -> tuple[int, str]:
        done = subprocess.run(
            command, input=encode_alert(DRIFT), capture_output=True, env=environment(), timeout=60
        )  # fmt: skip
        return done.returncode, done.stdout.decode()

    pointer.write_text("half of a poi", encoding="utf-8")
    code, text = run()
    assert (code, text.startswith("The pointer cannot be changed: ")) == (75, True)
    pointer.write_text(json.dumps(POINTER), encoding="utf-8")
    assert run() == (0, "Rolled back from version 2 to 1: FIRING · critical · digits 2 · prediction drift\n")
    assert run() == (0, "Not rolled back: version 2 is not in service.\n")
    changed = json.loads(pointer.read_text(encoding="utf-8"))
    assert (changed["version"], changed["previous"], changed["taken_back"]) == ("1", None, ["2"])


def test_the_configurations_in_examples_are_valid(tmp_path: Path) -> None:
    load_config(EXAMPLES / "rollback" / "mlmon.yaml", {})
    readme = (EXAMPLES / "retrain" / "README.md").read_text(encoding="utf-8")
    file = tmp_path / "mlmon.yaml"
    file.write_text(readme.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    config = load_config(file, {"MLMON_WEBHOOK_SECRET": "s3cret"})
    assert [entry.name for entry in config.alerts.notify] == ["log", "webhook"]


def test_retrain_starts_one_job_for_an_alert_that_training_mends(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.txt"
    folder = EXAMPLES / "retrain"
    job = f"import runpy, sys; sys.stdout = open({str(jobs)!r}, 'a'); runpy.run_path({str(folder / 'train.py')!r})"
    child = subprocess.Popen(
        [sys.executable, str(folder / "webhook.py"), "0", sys.executable, "-c", job],
        stdout=subprocess.PIPE,
        env=environment(MLMON_WEBHOOK_SECRET="s3cret"),
        text=True,
    )
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline().removeprefix("Listening on port ").rstrip(".\n"))
        url = f"http://127.0.0.1:{port}/"
        notifier = WebhookNotifier(url, secret="s3cret", timeout_s=60)
        answers = []
        for alert in (replace(FIRING, rule="latency"), FIRING, FIRING, replace(FIRING, state=RuleState.OK)):
            notifier.notify(alert)
            answers.append(child.stdout.readline())
        assert answers[:2] == [
            "200: latency is nothing that training mends\n", "202: a job was started\n",
        ]  # fmt: skip
        assert answers[2].startswith("200: a job of this model ")
        assert answers[3] == "200: it is no new alert\n"
        with pytest.raises(PermanentError, match="401"):
            WebhookNotifier(url, secret="guess", timeout_s=60).notify(FIRING)
        old = WebhookNotifier(url, secret="s3cret", timeout_s=60, clock=lambda: time.time() - 3600)
        with pytest.raises(PermanentError, match="401"):
            old.notify(FIRING)
        until(lambda: jobs.exists() and jobs.read_text().endswith(".\n"))
    finally:
        child.terminate()
        child.communicate(timeout=60)
    assert jobs.read_text() == f"Training digits anew: prediction.label moved since {FIRING.onset_ns}.\n"
