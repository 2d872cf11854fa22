"""Writes alerts that could not be sent as JSON lines for a person to read, into two files of bounded size."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.document import build_alert_document

MAX_BYTES: Final = 2**20
_LOG: Final = logging.getLogger("otel_mlmon.alerts")


class AlertDeadLetters:
    """A file of alerts that could not be sent; when it is full it becomes `<name>.1`, in place of the last one.

    Runs on: any thread; writes one line at a time.

    Args:
        path: Created when the first alert comes, readable by its owner only.
        max_bytes: Of one file; the two together hold up to twice as much.
        clock: Seconds since the epoch.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()

    def write(self, alert: Alert, *, notifier: str, reason: str, detail: str) -> None:
        """Appends an alert that could not be sent, with the reason. A full disk is logged, never raised."""
        time_utc = datetime.fromtimestamp(self._clock(), tz=timezone.utc).isoformat(timespec="seconds")
        letter = {
            "time": time_utc,
            "notifier": notifier,
            "reason": reason,
            "detail": detail,
            "alert": build_alert_document(alert),
        }
        line = json.dumps(letter, ensure_ascii=False).encode() + b"\n"
        _LOG.error(
            "Notifier %s could not send an alert (%s: %s); it is in %s.",
            notifier, reason, detail or "no details", self._path,
        )  # fmt: skip
        try:
            with self._lock:
                self._append_line(line)
        except OSError as error:
            _LOG.error("The dead letters at %s cannot be written: %s", self._path, error.strerror)

    def _append_line(self, line: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        size_bytes = self._path.stat().st_size if self._path.exists() else 0
        if size_bytes and size_bytes + len(line) > self._max_bytes:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(line)
