"""Runs a program for each alert: to roll back, to retrain, or to notify people in a way that no notifier offers.

The program is run without a shell. It reads the alert as JSON from its standard input, the same document that a webhook
gets, and must know `key` to do a thing once: it may be run again for the same alert. Exit code 0 is success, 75 asks
for another attempt (`EX_TEMPFAIL` of sysexits.h), any other is a failure for good. The last of its output is logged.
What it leaves running when it ends goes on, and needs an output of its own; at the time-out all it started is killed.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import Any, ClassVar, Final

from pydantic import Field

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.document import encode_alert
from otel_mlmon.processor.config.section import ConfigSection, Duration
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError

EXIT_TEMPORARY: Final = 75
MAX_OUTPUT: Final = 4096
"""Characters of a program's output that are logged: the last ones."""
MAX_OUTPUT_BYTES: Final = 4 * MAX_OUTPUT
READ_BYTES: Final = 65_536
MAX_READS: Final = 16
"""Reads between two looks at whether the program has ended."""
POLL_S: Final = 0.05
_LOG: Final = logging.getLogger("otel_mlmon.alerts")


class CommandSection(ConfigSection):
    """The configuration of a program that is run for each alert."""

    run: tuple[str, ...] = Field(min_length=1, description="The program and its arguments; there is no shell.")
    timeout_s: Duration = Field(
        default=60.0, alias="timeout", gt=0, description="After this it is killed, with what it started."
    )


class CommandNotifier:
    """Runs a program for each alert, with the alert as JSON on its standard input.

    Args:
        run: The program and its arguments.
        timeout_s: After this it is killed.
    """

    section_type: ClassVar = CommandSection

    def __init__(self, run: tuple[str, ...], *, timeout_s: float) -> None:
        self._run = run
        self.attempt_timeout_s = timeout_s

    @classmethod
    def create(cls, section: CommandSection, emit_event: Any) -> CommandNotifier:  # noqa: ARG003 (the Protocol's)
        """Makes the notifier that runs a program, from its configuration section."""
        return cls(section.run, timeout_s=section.timeout_s)

    def notify(self, alert: Alert) -> None:
        """Runs the program for an alert and waits for its end."""
        with tempfile.TemporaryFile() as document:
            document.write(encode_alert(alert))
            document.seek(0)
            try:
                process = subprocess.Popen(
                    self._run, stdin=document, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
                )
            except (OSError, ValueError) as error:
                raise PermanentError(f"{self._run[0]} cannot be run: {error}") from None
        with process:
            output = self._read_output(process)
        text = output.decode(errors="replace").strip()[-MAX_OUTPUT:]
        if text:
            _LOG.info("%s: %s", self._run[0], text)
        if process.returncode == EXIT_TEMPORARY:
            raise TransientError(f"exit code {EXIT_TEMPORARY}")
        if process.returncode != 0:
            raise PermanentError(f"exit code {process.returncode}")

    def _read_output(self, process: subprocess.Popen[bytes]) -> bytes:
        """Reads the output of a program until it ends, and returns the last part of it.

        What it started may hold its output open for ever: its own end is what counts.
        """
        ends_s = time.monotonic() + self.attempt_timeout_s
        pipe, output, is_open = process.stdout, b"", True
        assert pipe is not None  # noqa: S101 (it was asked for)
        os.set_blocking(pipe.fileno(), False)
        while True:
            has_ended = process.poll() is not None
            for _ in range(MAX_READS):
                data = _read_available_output(pipe.fileno()) if is_open else None
                is_open &= data != b""
                if not data:
                    break
                output = (output + data)[-MAX_OUTPUT_BYTES:]
            remaining_s = ends_s - time.monotonic()
            if has_ended:
                return output
            if remaining_s <= 0:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise TransientError(f"no end within {self.attempt_timeout_s:g} s", is_ambiguous=True)
            select.select([pipe] if is_open else [], [], [], min(POLL_S, remaining_s))


def _read_available_output(descriptor: int) -> bytes | None:
    """Reads the bytes of output that a program has written so far; None if there are none yet, empty at the end."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
