"""A child process of the demo: started, told what to do, listened to, and always ended.

Its output goes to files, so nothing has to be read for it to go on, and all of it is there when it fails.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from otel_mlmon.errors import MlmonError

STOP_S: Final = 5.0
"""A child that was asked to end and has not after this time is killed."""

LOOK_S: Final = 0.02


class ChildFailedError(MlmonError):
    """A child process ended, did not say what it must, or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A running child process; `started` makes one."""

    name: str
    """What messages call it; also the stem of its files."""
    process: subprocess.Popen[bytes]
    folder: Path
    """Where its output is."""

    def say(self, line: str) -> None:
        """Write one line to its standard input; to a process that has ended, nothing."""
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.write(f"{line}\n".encode())

    def hang_up(self) -> None:
        """End its standard input."""
        if self.process.stdin:
            self.process.stdin.close()

    def wait_for(self, event: str, *, timeout_s: float) -> dict[str, Any]:
        """The JSON object with `"event": event` that it prints on a line of its standard output.

        Raises:
            ChildFailedError: It ended without, or the time is over.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            has_ended = self.process.poll() is not None
            # Read after the poll: what it printed before it ended is not missed.
            for answer in map(_json_object, self.output("stdout").splitlines()):
                if answer.get("event") == event:
                    return answer
            if has_ended:
                self.check()
            time.sleep(LOOK_S)
        raise ChildFailedError(f"The {self.name} did not say {event!r} within {timeout_s:g} s.")

    def check(self) -> None:
        """Nothing, if it runs.

        Raises:
            ChildFailedError: It has ended.
        """
        code = self.process.poll()
        if code is not None:
            raise ChildFailedError(f"The {self.name} ended with exit code {code}.")

    def output(self, stream: str) -> str:
        """All that it wrote to `stdout` or `stderr` so far."""
        return _file(self.folder, self.name, stream).read_text(errors="replace")


@contextmanager
def started(name: str, command: Sequence[str], *, folder: Path, environ: Mapping[str, str]) -> Iterator[Child]:
    """Start a child process, and end it when the block ends.

    It gets a session of its own: Ctrl-C reaches the demo alone, which then ends its children in order.

    Args:
        name: What messages call it.
        command: Program and arguments.
        folder: Where its output goes.
        environ: Its whole environment.
    """
    with (
        _file(folder, name, "stdout").open("wb") as stdout,
        _file(folder, name, "stderr").open("wb") as stderr,
    ):
        process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            env=dict(environ),
            start_new_session=True,
        )
    with process:
        try:
            yield Child(name=name, process=process, folder=folder)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _file(folder: Path, name: str, stream: str) -> Path:
    return folder / f"{name}.{stream}"


def _json_object(line: str) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}
