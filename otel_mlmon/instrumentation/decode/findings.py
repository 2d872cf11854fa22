"""Records facts inferred about each model: logged once, and reported by `status()`."""

from __future__ import annotations

import logging
from typing import Final

MAX_FINDINGS: Final = 1024

_LOG: Final = logging.getLogger("otel_mlmon")


class Findings:
    """Holds the latest sentence for each model and subject.

    Runs on: `note` on one thread at a time, `all` on any.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], str] = {}

    def note(
        self, model: str, subject: str, finding: str, *, is_logged: bool = True, assumption: str = "", output: str = ""
    ) -> None:
        """Records a finding, and logs it if it is new, however many sessions of the model have it.

        Args:
            model: The model's name.
            subject: What it is about.
            finding: The finding.
            is_logged: Whether it is logged, as information.
            assumption: Why it is no more than an assumption, which is logged as a warning; empty if it is certain.
            output: The output whose kind was assumed.
        """
        key = (model, subject)
        if self._texts.get(key) == finding or (key not in self._texts and len(self._texts) >= MAX_FINDINGS):
            return
        self._texts[key] = finding
        if assumption:
            _LOG.warning(
                "Model %s, %s: %s, assumed, since its file and name say no more than %s. If it is something else: "
                "otel_mlmon.instrument(models={%r: ModelOptions(output_kind={%r: ...})})",
                model, subject, finding, assumption, model, output,
            )  # fmt: skip
        elif is_logged:
            _LOG.info("Model %s, %s: %s.", model, subject, finding)

    def note_full_vocabulary(self, model: str, feature: str) -> None:
        """Notes that there are more labels, or values of a feature, than are counted by name."""
        subject = f"values of {feature}" if feature else "labels"
        self.note(model, subject, "more than max_labels, the others are in buckets or _OTHER")

    def all(self) -> dict[str, dict[str, str]]:
        """Returns the findings by model and subject."""
        by_model: dict[str, dict[str, str]] = {}
        for (model, subject), finding in list(self._texts.items()):
            by_model.setdefault(model, {})[subject] = finding
        return by_model
