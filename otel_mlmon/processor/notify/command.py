"""Runs a program for each alert: to roll back, to retrain, or to tell whoever has no other notifier.

The program is run without a shell. It reads the alert as JSON from its standard input, the same document that a webhook
gets, and must know `key` to do a thing once: it may be run again for the same alert. Exit code 0 is success, 75 asks
for another attempt (`EX_TEMPFAIL` of sysexits.h), any other is a failure for good. What it writes is logged.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from contextlib import suppress
from typing import Any, ClassVar, Final

from pydantic import Field

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.document import encode_document
from otel_mlmon.processor.config.section import Duration, Section
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError

EXIT_TEMPORARY: Final = 75
MAX_OUTPUT: Final = 4096
"""Characters of a program's output that are logged: the last ones."""
_LOG: Final = logging.getLogger("otel_mlmon.alerts")


class CommandSection(Section):
    """A program that is run for each alert."""

    run: tuple[str, ...] = Field(min_length=1, description="The program and its arguments; there is no shell.")
    timeout_s: Duration = Field(
        default=60.0, alias="timeout", gt=0, description="After this it is killed, with what it started."
    )


class CommandNotifier:
    """Runs a program.

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
        """Makes the notifier."""
        return cls(section.run, timeout_s=section.timeout_s)

    def notify(self, alert: Alert) -> None:
        """Runs the program and waits for its end."""
        try:
            process = subprocess.Popen(
                self._run,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise PermanentError(f"{self._run[0]} cannot be run: {error}") from None
        try:
            output, _ = process.communicate(encode_document(alert), timeout=self.attempt_timeout_s)
        except subprocess.TimeoutExpired:
            raise TransientError(f"no end within {self.attempt_timeout_s:g} s", is_ambiguous=True) from None
        finally:
            # What it started and left behind holds its output open.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        text = output.decode(errors="replace").strip()[-MAX_OUTPUT:]
        if text:
            _LOG.info("%s: %s", self._run[0], text)
        if process.returncode == EXIT_TEMPORARY:
            raise TransientError(f"exit code {EXIT_TEMPORARY}")
        if process.returncode != 0:
            raise PermanentError(f"exit code {process.returncode}")
