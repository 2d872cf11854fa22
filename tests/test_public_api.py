"""What is public: adding, removing or changing a name or a signature is seen here, and is meant."""

from __future__ import annotations

import contextlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import otel_mlmon
from otel_mlmon import testing

PINNED = Path(__file__).with_name("public_api.txt")

NAMES = [
    "ConfigurationError", "Handle", "MlmonError", "ModelOptions", "OnnxRuntimeInstrumentor", "Prediction", "Status",
    "__version__", "flush_on_shutdown", "instrument", "observe", "uninstrument",
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


WATCH = f"""
import os, sys
touched = []
def watch(event, arguments):
    is_module = event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so"))
    if event.startswith(("socket.", "subprocess.", "os.putenv")) or (event == "open" and not is_module):
        touched.append((event, str(arguments[:1])))
class Environment(type(os.environ)):
    def __getitem__(self, name):
        touched.append(("environment", name))
        return super().__getitem__(name)
sys.addaudithook(watch)
os.environ.__class__ = Environment
STATEMENT
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(heavy, touched)
"""


def effects(statement: str) -> str:
    """Returns what a statement loads, and which files, sockets and variables it touches, in a process of its own."""
    program = WATCH.replace("STATEMENT", statement)
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_importing_loads_nothing_heavy_and_touches_nothing() -> None:
    assert effects("import otel_mlmon") == "[] []\n"


@pytest.mark.parametrize(
    ("statement", "effect"),
    [
        ("open(os.devnull).close()", "[] [('open', \"('/dev/null',)\")]\n"),
        ("os.environ.get('OTEL_MLMON_SENTRY')", "[] [('environment', 'OTEL_MLMON_SENTRY')]\n"),
        ("import socket; socket.gethostname()", "[] [('socket.gethostname', '()')]\n"),
    ],
)
def test_what_an_import_must_not_do_is_seen(statement: str, effect: str) -> None:
    assert effects(statement) == effect


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


def test_the_processor_loads_only_the_light_parts_of_scipy() -> None:
    """`scipy.stats` and what it brings take half a second and 50 MB."""
    program = """
import sys
import otel_mlmon.processor.service
print([name for name in ("scipy.special", "scipy.stats", "scipy.optimize", "scipy.spatial") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['scipy.special']\n", "")


def public_api() -> str:
    """Returns every public name with its signature, as `tests/public_api.txt` has it."""
    lines = []
    for module in (otel_mlmon, testing):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                lines.append(f"{module.__name__}.{name}{_signature(value)}")
                members = [member for member in sorted(vars(value)) if not member.startswith("_")]
                lines += [f"    {member}{_signature(vars(value)[member])}" for member in members]
            else:
                lines.append(f"{module.__name__}.{name}{_signature(value)}")
    return "\n".join(lines) + "\n"


def _signature(value: object) -> str:
    configuration: object = otel_mlmon.OnnxRuntimeInstrumentor.configuration
    if not callable(value) or value is configuration:
        return ""  # the section of OpenTelemetry's configuration file follows from `instrument()`
    with contextlib.suppress(ValueError):
        return str(inspect.signature(value))
    return ""


def test_every_signature_is_as_it_was() -> None:
    """A change is meant: then write what `public_api()` returns into the file."""
    assert public_api() == PINNED.read_text(encoding="utf-8")
