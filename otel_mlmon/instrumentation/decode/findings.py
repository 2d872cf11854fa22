"""What was found out about each model by itself: said once in the log, and to whoever asks."""

from __future__ import annotations

import logging
from typing import Final

MAX_FINDINGS: Final = 1024

_LOG: Final = logging.getLogger("otel_mlmon")


class Findings:
    """One sentence a model and subject, the last one of each.

    Runs on: `note` on one thread at a time, `all` on any.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], str] = {}

    def note(self, model: str, subject: str, finding: str, *, is_logged: bool = True) -> None:
        """Keep `finding`, and log it if it is new, however many sessions of the model find it."""
        key = (model, subject)
        if self._of.get(key) == finding or (key not in self._of and len(self._of) >= MAX_FINDINGS):
            return
        self._of[key] = finding
        if is_logged:
            _LOG.info("Model %s, %s: %s.", model, subject, finding)

    def full(self, model: str, feature: str) -> None:
        """Note that there are more labels, or values of a feature, than are counted by name."""
        subject = f"values of {feature}" if feature else "labels"
        self.note(model, subject, "more than may be counted by name (max_labels), the rest is _OTHER")

    def all(self) -> dict[str, dict[str, str]]:
        """Findings by model and subject."""
        found: dict[str, dict[str, str]] = {}
        for (model, subject), finding in list(self._of.items()):
            found.setdefault(model, {})[subject] = finding
        return found
