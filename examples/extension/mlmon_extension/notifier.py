"""A notifier that appends a line to a file for each alert."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.config.section import ConfigSection
from otel_mlmon.processor.notify.notifier import TransientError


class FileSection(ConfigSection):
    """Alerts as lines of a file."""

    path: Path = Field(default=Path("alerts.txt"), description="The file; it is created if it is not there.")


class FileNotifier:
    """Appends model, rule and state of each alert."""

    section_type: ClassVar = FileSection

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, section: FileSection, emit_event: Any) -> FileNotifier:
        """Makes the notifier from its section of the configuration."""
        return cls(section.path)

    def notify(self, alert: Alert) -> None:
        """Writes one line; a full disk is tried again."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{alert.model} {alert.rule} {alert.state.value}\n")
        except OSError as error:
            raise TransientError(f"{self._path} cannot be written: {error}") from error
