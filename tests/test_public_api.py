"""What is public: adding, removing or changing a name or a signature is seen here, and is meant."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import otel_mlmon

NAMES = [
    "ConfigurationError", "Handle", "MlmonError", "ModelOptions", "OnnxRuntimeInstrumentor", "Prediction", "Status",
    "__version__", "instrument", "observe", "uninstrument",
]  # fmt: skip

HEAVY = ("onnxruntime", "scipy", "grpc", "pydantic", "starlette", "opentelemetry.exporter", "opentelemetry.sdk")


def test_the_public_names() -> None:
    assert otel_mlmon.__all__ == NAMES
    assert [name for name in NAMES if not hasattr(otel_mlmon, name)] == []


def test_instrument_takes_keywords_only_and_each_has_a_default() -> None:
    for parameter in inspect.signature(otel_mlmon.instrument).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter.name
        assert parameter.default is not inspect.Parameter.empty, parameter.name


def test_the_handle() -> None:
    public = {name for name in vars(otel_mlmon.Handle) if not name.startswith("_")}
    assert public == {"flush", "shutdown", "status", "uninstrument"}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'instrumentt'"):
        _ = otel_mlmon.instrumentt


def test_importing_loads_nothing_heavy_and_reads_nothing() -> None:
    program = f"""
import sys
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith(("socket.", "subprocess.")) else None)
import otel_mlmon
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert heavy == [], heavy
assert opened == [], opened
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_instrumenting_never_loads_what_belongs_to_the_processor() -> None:
    program = """
import sys
import otel_mlmon
otel_mlmon.instrument().shutdown()
heavy = [name for name in ("scipy", "pydantic", "starlette", "uvicorn", "rich") if name in sys.modules]
assert heavy == [], heavy
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
