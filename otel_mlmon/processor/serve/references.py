"""`/api/v1/references/{name}`: the reference of a model as a profile, or why there is none to have.

An answer other than the profile is `{"error": words, "reason": one of REASONS}`, and for several versions `versions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

REASONS: Final = ("unknown_model", "unknown_version", "several_versions", "learning", "moving")

FOUND: Final = 200
NOT_FOUND: Final = 404
CONFLICT: Final = 409
MAX_NAMED: Final = 5
"""Streams, models or versions that an error names."""


class Exportable(Protocol):
    """One model version's reference as it stands."""

    @property
    def learning(self) -> Mapping[str, tuple[int, int]]:
        """By stream that has none yet: values seen, and how many it takes at least."""

    @property
    def moving(self) -> Sequence[str]:
        """Streams whose reference moves with time."""

    def document(self) -> dict[str, Any] | None:
        """The profile as JSON has it; None if no stream has one."""


References = Mapping[str, Mapping[str, Exportable]]
"""By name and version of a model."""


def answer(known: References, name: str, version: str | None, *, is_partial: bool) -> tuple[int, dict[str, Any]]:
    """Status and document.

    Args:
        known: Every model.
        name: The model.
        version: Which one; None where there is one only.
        is_partial: Whether streams that still learn are left out; else there is none to have.
    """
    versions = known.get(name)
    if versions is None:
        there = f"there is {_some(sorted(known))}" if known else "none was heard of yet"
        return _refusal(NOT_FOUND, "unknown_model", f"There is no model {name!r}: {there}.")
    if version is None and len(versions) > 1:
        words = f"Model {name!r} has {len(versions)} versions, {_some(sorted(versions))}: it must be said which."
        status, document = _refusal(CONFLICT, "several_versions", words)
        return status, {**document, "versions": sorted(versions)}
    found = versions.get(version) if version is not None else next(iter(versions.values()))
    if found is None:
        words = f"Model {name!r} has no version {version!r}: there is {_some(sorted(versions))}."
        return _refusal(NOT_FOUND, "unknown_version", words)
    return _of_version(name, found, is_partial=is_partial)


def _of_version(name: str, found: Exportable, *, is_partial: bool) -> tuple[int, dict[str, Any]]:
    if found.moving:
        words = f"The reference of model {name!r} moves with time ({_some(found.moving)}): there is none that stays."
        return _refusal(CONFLICT, "moving", words)
    document = None if found.learning and not is_partial else found.document()
    if document is not None:
        return FOUND, document
    seen = [_progress(stream, count, asked) for stream, (count, asked) in sorted(found.learning.items())]
    words = f"Model {name!r} still learns its reference: {_some(seen) if seen else 'nothing was predicted yet'}."
    return _refusal(CONFLICT, "learning", words)


def _progress(stream: str, count: int, asked: int) -> str:
    if count < asked:
        return f"{stream} has {count} of {asked} values"
    return f"{stream} has {asked} values, and is still to show how bursty and how steady they are"


def _refusal(status: int, reason: str, words: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": words, "reason": reason}


def _some(words: Sequence[str]) -> str:
    shown = ", ".join(word or "one without a name" for word in words[:MAX_NAMED])
    return f"{shown} and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else shown
