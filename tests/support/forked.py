"""Runs programs, each in a process of its own, forked from one that has imported other people's packages already."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

# What Sentry's integrations and OpenTelemetry's SDK import takes a second in a process. Neither Sentry nor this package
# is among them: whether and when they are imported is up to the program.
PACKAGES: Final = (
    "aiohttp.web", "celery.app.trace", "celery.worker", "fastapi", "httpx", "jinja2", "numpy", "onnx", "onnxruntime",
    "opentelemetry.sdk.metrics", "opentelemetry.sdk.trace", "opentelemetry.sdk._logs", "pydantic", "pytest", "requests",
    "rich.console", "starlette.applications",
)  # fmt: skip
_CONTEXT: Final = multiprocessing.get_context("forkserver")


def run_forked(
    program: str, arguments: Sequence[str], *, environ: Mapping[str, str], timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs a program as `python -c` would, and returns its output; what is registered for its exit is not called.

    Args:
        program: Its source.
        arguments: `sys.argv` behind the first.
        environ: All its environment.
        timeout_s: Seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: It took longer.
    """
    _CONTEXT.set_forkserver_preload(list(PACKAGES))
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / name for name in ("out", "err")]
        process = _CONTEXT.Process(target=_run, args=(program, list(arguments), dict(environ), *map(str, paths)))
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(program, timeout_s)
        code = process.exitcode
        process.close()
        out, err = (path.read_text(encoding="utf-8") for path in paths)
    return subprocess.CompletedProcess(program, -1 if code is None else code, out, err)


def _run(program: str, arguments: list[str], environ: dict[str, str], out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
