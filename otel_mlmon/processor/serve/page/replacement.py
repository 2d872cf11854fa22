"""Decides whether a model version was replaced: its calls have ended, and another version of the model has some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.history import SECOND_NS, SPANS
from otel_mlmon.processor.serve.page.source import PageSource

Document = Mapping[str, Any]

LATE_PANES: Final = 3
"""Panes may come so late; a version is silent only after them."""
MIN_MISSED_CALLS: Final = 20
"""Calls that a version would have had since its last one, had it gone on: fewer are missing by chance."""
SILENT_S: Final = 300.0
"""A version without calls for so long was replaced, however few it had."""
_RATE: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """The replacement of a model version by another one."""

    version: str
    """The version that has the calls now."""
    last_ns: int
    """About when the replaced version had its last call, Unix nanoseconds."""


def find_replacement(source: PageSource, model_id: str, model: Document) -> Replacement | None:
    """Finds the version that has taken over the calls of a version of the same model; None if it still has calls.

    None too if no version has any calls: then the model is silent, and nothing replaced it.

    Args:
        source: What the page is made of.
        model_id: The model.
        model: The document of the version.
    """
    last_ns = _find_last_call_ns(source, model_id, model)
    late_ns = LATE_PANES * source.pane_s * SECOND_NS
    if not last_ns:
        return None
    others = [
        (source.history.first_ns(model_id, version), _find_last_call_ns(source, model_id, document), version)
        for version, document in source.overview.get("versions", {}).get(model_id, {}).items()
        if version != model["version"] and document["updated_ns"] - last_ns > late_ns
    ]
    newest_ns = max((other_ns for _, other_ns, _ in others), default=0)
    if newest_ns - last_ns <= late_ns:
        return None
    silent_s = (newest_ns - last_ns) / 1e9
    rate = model["throughput_per_s"]
    if silent_s < SILENT_S and not (words.is_finite_number(rate) and rate * silent_s >= MIN_MISSED_CALLS):
        return None
    serving = [other for other in others if newest_ns - other[1] <= late_ns]
    return Replacement(version=max(serving)[-1], last_ns=last_ns)


def _find_last_call_ns(source: PageSource, model_id: str, model: Document) -> int:
    """Finds when a version had its last call, reports of no calls left out, Unix nanoseconds; 0 if that is unknown."""
    if not words.is_finite_number(model["throughput_per_s"]) or model["throughput_per_s"] > 0:
        return int(model["updated_ns"])
    for span in SPANS:
        rows = source.history.model_rows(model_id, model["version"], span)
        if times_ns := [time_ns for time_ns, values in rows if values[_RATE] > 0]:
            return times_ns[-1]
    return 0
