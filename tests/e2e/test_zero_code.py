"""`opentelemetry-instrument python app.py`: a program that knows nothing of us is measured, or left alone as asked."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import otel_mlmon
from otel_mlmon import semconv
from otel_mlmon.instrumentation import instrumentor
from tests.support.otlp_server import OtlpServer
from tests.support.processes import run_python

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent.parent

PROGRAM = """\
import sys
from importlib.resources import files
import numpy, onnxruntime
before = onnxruntime.InferenceSession.run.__code__.co_filename
session = onnxruntime.InferenceSession(str(files("otel_mlmon.demo") / "digits.onnx"))
for _ in range(3):
    session.run(None, {"image": numpy.full((1, 1, 8, 8), 0.5, dtype="float32")})
print("otel_mlmon" in before)
"""


def calls(tmp_path: Path, **environ: str) -> tuple[str, int, set[str]]:
    """What the program printed, the calls that arrived, and the signals that hold something of ours."""
    program = tmp_path / "app.py"
    program.write_text(PROGRAM, encoding="utf-8")
    starter = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
    with OtlpServer() as server:
        done = run_python(
            ["-c", starter, sys.executable, str(program)],
            cwd=tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=server.http_url,
            OTEL_MLMON_SHUTDOWN_TIMEOUT_S="20",  # a busy machine imports the exporters in seconds
            **{"PYTHONPATH": str(ROOT), "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", **environ},  # type: ignore[arg-type]
        )
        assert done.returncode == 0, done.stderr
        counts = [point.count for _, metric, point in server.points() if metric.name == semconv.DURATION.name]
        ours = {signal for signal, message in server.requests if f'name: "{semconv.SCOPE}"' in str(message)}
        return done.stdout.strip(), max(counts, default=0), ours


def test_a_program_that_knows_nothing_of_us_is_measured(tmp_path: Path) -> None:
    assert calls(tmp_path) == ("True", 3, {"traces", "metrics", "logs"})


def test_http_json_reaches_a_receiver(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.json.http")
    assert calls(tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="http/json") == ("True", 3, {"traces", "metrics", "logs"})


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "onnxruntime"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"},
        {"OTEL_SDK_DISABLED": "true"},
    ],
    ids=lambda environ: " ".join(map("=".join, environ.items())),
)
def test_it_is_left_alone_as_asked(tmp_path: Path, environ: dict[str, str]) -> None:
    assert calls(tmp_path, **environ) == ("False", 0, set())


def test_any_distribution_of_onnxruntime_will_do() -> None:
    said = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.search(r"^instruments-any = \[(.*?)^\]", said, re.MULTILINE | re.DOTALL)
    assert extra is not None
    assert tuple(re.findall(r'"([^"]+)"', extra[1])) == instrumentor.DISTRIBUTIONS
    assert re.search(r"^instruments = \[\]", said, re.MULTILINE)
    (entry,) = importlib.metadata.entry_points(group="opentelemetry_instrumentor", name="onnxruntime")
    assert entry.load() is otel_mlmon.OnnxRuntimeInstrumentor


def test_a_build_of_ones_own_passes_the_check_of_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    instrumentor = otel_mlmon.OnnxRuntimeInstrumentor()
    monkeypatch.setattr(
        otel_mlmon.OnnxRuntimeInstrumentor, "instrumentation_dependencies", lambda _: ("onnxruntime-none >= 1",)
    )
    instrumentor.instrument(span_ratio=0.0)
    try:
        assert instrumentor.is_instrumented_by_opentelemetry
    finally:
        instrumentor.uninstrument()


def test_opentelemetrys_configuration_file_sets_options_by_name() -> None:
    configuration = pytest.importorskip("opentelemetry.configuration.instrumentation")
    models = pytest.importorskip("opentelemetry.configuration.models")
    said = models.ExperimentalInstrumentation(
        python={"onnxruntime": {"span_ratio": 0.25, "max_labels": 7, "models": {"digits": {"version": "9"}}}}
    )
    configuration.configure_instrumentation(said)
    try:
        from otel_mlmon.instrumentation.lifecycle import _ProcessInstrumentation

        assert _ProcessInstrumentation.running is not None
        settings = _ProcessInstrumentation.running.pipeline.settings
        assert (settings.span_ratio, settings.max_labels) == (0.25, 7)
        assert settings.models == {"digits": otel_mlmon.ModelOptions(version="9")}
    finally:
        otel_mlmon.OnnxRuntimeInstrumentor().uninstrument()
