"""Starts real processes for the end-to-end tests, waits for them, and never leaves one behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.support.ports import free_port

T = TypeVar("T")
DEADLINE_S = 30.0
# One client for all requests: a client of its own would read every certificate authority for each, which takes longer
# than the answer. No connection is kept, since processes are killed here.
CLIENT = httpx.Client(timeout=10, limits=httpx.Limits(max_keepalive_connections=0))


def until(condition: Callable[[], T | None], *, deadline_s: float = DEADLINE_S, what: str = "") -> T:
    """Waits until `condition` returns something true, and returns it; fails after the deadline."""
    ends = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < ends, f"not within {deadline_s} s: {what or condition}"
        pause.wait(0.05)


def environment(**extra: str) -> dict[str, str]:
    """Returns this process's environment without OpenTelemetry's and Sentry's variables, and with `extra`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SENTRY_"))}
    return {**own, "ORT_DISABLE_TELEMETRY": "1", **extra}


@dataclass(kw_only=True)
class Processor:
    """`otel-mlmon processor` as a process of its own, on fixed ports so that it can come back to them."""

    directory: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    grpc: int = field(default_factory=free_port)
    http: int = field(default_factory=free_port)
    web: int = field(default_factory=free_port)
    child: subprocess.Popen[str] | None = None
    max_files: int | None = None
    """The limit on its open files; None for that of this process."""

    def configuration(self) -> dict[str, Any]:
        """Returns the text of mlmon.yaml; JSON is YAML."""
        return {
            "receiver": {"grpc": f"127.0.0.1:{self.grpc}", "http": f"127.0.0.1:{self.http}"},
            "storage": {"path": str(self.directory / "data")},
            "web": {"listen": f"127.0.0.1:{self.web}"},
            "windows": {"pane": "500ms", "lateness": "500ms", "rolling": "10s"},
            "models": {"*": {"reference": {"learn": 1000}}},
            **self.overrides,
        }

    def start(self) -> None:
        """Starts the processor, and waits until it is ready."""
        path = self.directory / "mlmon.yaml"
        path.write_text(json.dumps(self.configuration()), encoding="utf-8")
        with (self.directory / "stderr.txt").open("a") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "otel_mlmon", "processor", "--config", str(path), "--ready-json"],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
                text=True,
            )
        if self.max_files is not None:
            resource.prlimit(self.child.pid, resource.RLIMIT_NOFILE, (self.max_files, self.max_files))
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, (self.directory / "stderr.txt").read_text()
        assert json.loads(line)["event"] == "ready"

    def kill(self) -> None:
        """Kills the processor by SIGKILL."""
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """Stops the processor by SIGTERM; returns the exit code."""
        return self.end(signal.SIGTERM)

    def end(self, how: signal.Signals) -> int:
        """Ends the processor by a signal; returns the exit code."""
        assert self.child is not None
        self.child.send_signal(how)
        code = self.child.wait(timeout=60)
        if self.child.stdout is not None:
            self.child.stdout.close()
        self.child = None
        return code

    def get(self, path: str) -> Any:
        """Returns a document of the web port."""
        answer = CLIENT.get(f"http://127.0.0.1:{self.web}{path}")
        return answer.json() if answer.headers["content-type"].startswith("application/json") else answer.text

    def model(self, name: str) -> dict[str, Any] | None:
        """Returns the document of one model; None while there is none."""
        answer = CLIENT.get(f"http://127.0.0.1:{self.web}/api/v1/models/{name}")
        return answer.json() if answer.status_code == 200 else None

    def stream(self, model: str, stream: str) -> dict[str, Any] | None:
        """Returns the document of one stream of one model; None while there is none."""
        document = self.model(model) or {"streams": []}
        return next((entry for entry in document["streams"] if entry["stream"] == stream), None)


@contextmanager
def processor(directory: Path, **overrides: Any) -> Iterator[Processor]:
    """Runs a processor inside, and stops it at the end if it still runs."""
    directory.mkdir(parents=True, exist_ok=True)
    running = Processor(directory=directory, overrides=overrides)
    running.start()
    try:
        yield running
    finally:
        if running.child is not None:
            running.kill()


def run_python(
    arguments: Sequence[str], *, cwd: Path, timeout_s: float = 60, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Runs a Python program in a process of its own, and returns its output."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
