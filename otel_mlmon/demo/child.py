"""A child process of the demo, which is always ended with the demo.

Its output goes to files, so that it never waits for a reader, and all of it is available when it fails.
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
"""How long a child may take to end before it is killed."""

POLL_S: Final = 0.02


class ChildFailedError(MlmonError):
    """Raised where a child process of the demo ended early, printed no expected line, or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProcess:
    """A running child process of the demo: the processor, or the application with the model."""

    name: str
    """The name in messages, and the stem of its files."""
    process: subprocess.Popen[bytes]
    folder: Path
    """The folder of its output."""

    def send_input_line(self, line: str) -> None:
        """Writes one line to the standard input of the child process, unless that has ended."""
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.write(f"{line}\n".encode())

    def close_input(self) -> None:
        """Closes the standard input of the child process."""
        if self.process.stdin:
            self.process.stdin.close()

    def wait_for_event(self, event: str, *, timeout_s: float) -> dict[str, Any]:
        """Waits until the child process prints a JSON line whose `event` is the given one; returns the line's object.

        Raises:
            ChildFailedError: It ended without such a line, or the time is over.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            has_ended = self.process.poll() is not None
            # Read after the poll: what it printed before it ended is not missed.
            for document in map(_parse_json_object, self.read_output("stdout").splitlines()):
                if document.get("event") == event:
                    return document
            if has_ended:
                self.check_running()
            time.sleep(POLL_S)
        raise ChildFailedError(f"The {self.name} did not print the event {event!r} within {timeout_s:g} s.")

    def check_running(self) -> None:
        """Checks that the child process is running, and raises `ChildFailedError` if it has ended.

        Raises:
            ChildFailedError: It has ended.
        """
        code = self.process.poll()
        if code is not None:
            raise ChildFailedError(f"The {self.name} ended with exit code {code}.")

    def read_output(self, stream: str) -> str:
        """Returns what the child process has written to `stdout` or `stderr` so far."""
        return _name_output_file(self.folder, self.name, stream).read_text(errors="replace")


@contextmanager
def start_child_process(
    name: str, command: Sequence[str], *, folder: Path, environ: Mapping[str, str]
) -> Iterator[ChildProcess]:
    """Starts a child process of the demo, and ends it when the `with` block ends.

    It gets a session of its own: Ctrl-C reaches the demo alone, which then ends its children in order.

    Args:
        name: The name in messages.
        command: Program and arguments.
        folder: The folder for its output.
        environ: Its environment, in full.
    """
    with (
        _name_output_file(folder, name, "stdout").open("wb") as stdout,
        _name_output_file(folder, name, "stderr").open("wb") as stderr,
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
            yield ChildProcess(name=name, process=process, folder=folder)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _name_output_file(folder: Path, name: str, stream: str) -> Path:
    return folder / f"{name}.{stream}"


def _parse_json_object(line: str) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}
