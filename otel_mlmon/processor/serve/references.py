"""Finds the reference of a model for `/api/v1/references/{id}`: its profile, or the reason why there is none.

An answer other than the profile is `{"error": message, "reason": one of REASONS}`, with `versions` where there are
several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

REASONS: Final = ("unknown_model", "unknown_version", "several_versions", "learning", "moving")

FOUND: Final = 200
NOT_FOUND: Final = 404
CONFLICT: Final = 409
MAX_LISTED: Final = 5
"""How many streams, models or versions an error message lists."""


class Exportable(Protocol):
    """The present reference of one model version."""

    @property
    def learning(self) -> Mapping[str, tuple[int, int]]:
        """The values counted and the values required, by stream, of streams without a reference."""

    @property
    def moving(self) -> Sequence[str]:
        """The streams whose reference moves with time."""

    def document(self) -> dict[str, Any] | None:
        """Returns the profile as a JSON document; None if no stream has a reference."""


References = Mapping[str, Mapping[str, Exportable]]
"""Exportable references by the id and the version of a model."""


def find_reference(
    references: References, model: str, version: str | None, *, is_partial: bool
) -> tuple[int, dict[str, Any]]:
    """Returns the HTTP status and the document of a model's reference.

    Args:
        references: The references of all models.
        model: The model's id.
        version: The model's version; None where it has only one.
        is_partial: Whether streams without a reference are left out; otherwise they make the reference unavailable.
    """
    versions = references.get(model)
    if versions is None:
        hint = f"Known models: {_join_names(sorted(references))}." if references else "No telemetry has arrived yet."
        return _refusal(NOT_FOUND, "unknown_model", f"There is no model {model!r}. {hint}")
    if version is None and len(versions) > 1:
        listed = _join_names(sorted(versions))
        message = f"Model {model!r} has {len(versions)} versions: {listed}. Choose one with the parameter version."
        status, document = _refusal(CONFLICT, "several_versions", message)
        return status, {**document, "versions": sorted(versions)}
    reference = versions.get(version) if version is not None else next(iter(versions.values()))
    if reference is None:
        message = f"Model {model!r} has no version {version!r}. Known versions: {_join_names(sorted(versions))}."
        return _refusal(NOT_FOUND, "unknown_version", message)
    return _export_profile(model, reference, is_partial=is_partial)


def _export_profile(model: str, reference: Exportable, *, is_partial: bool) -> tuple[int, dict[str, Any]]:
    if reference.moving:
        streams = _join_names(reference.moving)
        message = f"The reference of model {model!r} moves with time ({streams}) and cannot be exported."
        return _refusal(CONFLICT, "moving", message)
    document = None if reference.learning and not is_partial else reference.document()
    if document is not None:
        return FOUND, document
    progress = [_describe_progress(stream, *counts) for stream, counts in sorted(reference.learning.items())]
    learned = _join_names(progress) if progress else "no predictions yet"
    return _refusal(CONFLICT, "learning", f"Model {model!r} is still learning its reference: {learned}.")


def _describe_progress(stream: str, count: int, required: int) -> str:
    if count < required:
        return f"{stream} has {count} of {required} values"
    return f"{stream} has {required} values, but its burstiness or steadiness is not estimated yet"


def _refusal(status: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": message, "reason": reason}


def _join_names(names: Sequence[str]) -> str:
    listed = ", ".join(name or "(no version)" for name in names[:MAX_LISTED])
    return f"{listed} and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else listed
