"""Records facts inferred about each model: logged once, and reported by `status()`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection
from typing import Final

MAX_FINDINGS: Final = 1024

DESCRIPTION: Final = "description"
"""The subject of a description in `instrument(models=…)`."""

UNMATCHED: Final = "no model of this name has run"

_LOG: Final = logging.getLogger("otel_mlmon")


class Findings:
    """Holds the latest sentence for each model and subject.

    Runs on: `note` and `note_model` on one thread at a time, `all` on any.

    Args:
        declared: The models that the developer described, by name; may grow.
    """

    def __init__(self, declared: Collection[str] = ()) -> None:
        self._declared = declared
        self._models: set[str] = set()
        self._texts: dict[tuple[str, str], str] = {}

    def note_model(self, model: str) -> None:
        """Notes that a model has run, and warns where only a name near to its own was described."""
        self._models.add(model)
        self._texts.pop((model, DESCRIPTION), None)
        if model in self._declared:
            return
        for name in difflib.get_close_matches(
            model, [name for name in self._declared if name not in self._models], n=1
        ):
            self.note(name, DESCRIPTION, f"{UNMATCHED}; did you mean {model}, which has", is_warning=True)

    def note(
        self,
        model: str,
        subject: str,
        finding: str,
        *,
        is_logged: bool = True,
        is_warning: bool = False,
        assumption: str = "",
        output: str = "",
    ) -> None:
        """Records a finding, and logs it if it is new, however many sessions of the model have it.

        Args:
            model: The model's name.
            subject: What it is about.
            finding: The finding.
            is_logged: Whether it is logged, as information.
            is_warning: Whether it is a mistake of the developer's, which is logged as a warning.
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
            _LOG.log(logging.WARNING if is_warning else logging.INFO, "Model %s, %s: %s.", model, subject, finding)

    def note_full_vocabulary(self, model: str, feature: str) -> None:
        """Notes that there are more labels, or values of a feature, than are counted by name."""
        subject = f"values of {feature}" if feature else "labels"
        self.note(model, subject, "more than max_labels, the others are in buckets or _OTHER")

    def all(self) -> dict[str, dict[str, str]]:
        """Returns the findings by model and subject."""
        by_model: dict[str, dict[str, str]] = {}
        if self._models:
            by_model = {name: {DESCRIPTION: UNMATCHED} for name in list(self._declared) if name not in self._models}
        for (model, subject), finding in list(self._texts.items()):
            by_model.setdefault(model, {})[subject] = finding
        return by_model
