"""Serves the reference profile of a model at `/api/v1/references/{id}`, and has references learned again.

An answer other than the profile is `{"error": message, "reason": one of REASONS}`, with `versions` where there are
several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from otel_mlmon.types import ModelKey

REASONS: Final = (
    "unknown_model", "unknown_version", "several_versions", "learning", "moving", "not_learned",
)  # fmt: skip

FOUND: Final = 200
NOT_FOUND: Final = 404
CONFLICT: Final = 409
MAX_LISTED: Final = 5
"""How many streams, models or versions an error message lists."""


class ExportableReference(Protocol):
    """The present reference of one model version, as the web port can export it."""

    @property
    def model(self) -> ModelKey:
        """The model version that the reference belongs to."""

    @property
    def relearnable(self) -> Sequence[str]:
        """The streams of the model version whose reference can be learned again."""

    @property
    def learning(self) -> Mapping[str, tuple[int, int]]:
        """The number of values counted and of values required, by stream, of streams that have no reference yet."""

    @property
    def moving(self) -> Sequence[str]:
        """The streams of the model version whose reference moves with time."""

    def document(self) -> dict[str, Any] | None:
        """Returns the references of a model version as a JSON profile; None if no stream has one."""


References = Mapping[str, Mapping[str, ExportableReference]]
"""Exportable references by the id and the version of a model."""


def find_reference(
    references: References, model: str, version: str | None, *, is_partial: bool
) -> tuple[int, dict[str, Any]]:
    """Returns the HTTP status and the JSON document of a model's reference.

    Args:
        references: The references of all models.
        model: The model's id.
        version: The model's version; None where it has only one.
        is_partial: Whether streams without a reference are left out; otherwise they make the reference unavailable.
    """
    reference = _find_version_reference(references, model, version)
    if isinstance(reference, tuple):
        return reference
    return _export_profile(model, reference, is_partial=is_partial)


def relearn_references(
    references: References,
    model: str,
    version: str | None,
    streams: Sequence[str],
    relearn: Callable[[ModelKey, tuple[str, ...]], None],
) -> tuple[int, dict[str, Any]]:
    """Has references of a model learned again; returns the HTTP status and a JSON document of the streams affected.

    Args:
        references: The references of all models.
        model: The model's id.
        version: The model's version; None where it has only one.
        streams: The streams; all that can be learned if empty.
        relearn: Starts to learn; returns when that is stored.
    """
    reference = _find_version_reference(references, model, version)
    if isinstance(reference, tuple):
        return reference
    wrong = [stream for stream in streams if stream not in reference.relearnable]
    if wrong or not reference.relearnable:
        learned = f"Learned are: {_join_limited_names(sorted(reference.relearnable))}." if reference.relearnable else ""
        subject = f"streams {_join_limited_names(wrong)} have" if wrong else f"model {model!r} has"
        message = (
            f"The {subject} no learned reference: there is none of that name, or it is compared with a file, the "
            f"model's own reference or a fixed bound. {learned}"
        )
        return _build_reference_refusal(CONFLICT, "not_learned", message.strip())
    names = tuple(dict.fromkeys(streams)) or tuple(sorted(reference.relearnable))
    relearn(reference.model, names)
    return FOUND, {"model": model, "version": reference.model.version, "streams": list(names)}


def _find_version_reference(
    references: References, model: str, version: str | None
) -> ExportableReference | tuple[int, dict[str, Any]]:
    """Returns the reference of a model version, or the error response that there is none."""
    versions = references.get(model)
    if versions is None:
        hint = (
            f"Known models: {_join_limited_names(sorted(references))}."
            if references
            else "No telemetry has arrived yet."
        )
        return _build_reference_refusal(NOT_FOUND, "unknown_model", f"There is no model {model!r}. {hint}")
    if version is None and len(versions) > 1:
        listed = _join_limited_names(sorted(versions))
        message = f"Model {model!r} has {len(versions)} versions: {listed}. Choose one with the parameter version."
        status, document = _build_reference_refusal(CONFLICT, "several_versions", message)
        return status, {**document, "versions": sorted(versions)}
    reference = versions.get(version) if version is not None else next(iter(versions.values()))
    if reference is None:
        message = (
            f"Model {model!r} has no version {version!r}. Known versions: {_join_limited_names(sorted(versions))}."
        )
        return _build_reference_refusal(NOT_FOUND, "unknown_version", message)
    return reference


def _export_profile(model: str, reference: ExportableReference, *, is_partial: bool) -> tuple[int, dict[str, Any]]:
    if reference.moving:
        streams = _join_limited_names(reference.moving)
        message = f"The reference of model {model!r} moves with time ({streams}) and cannot be exported."
        return _build_reference_refusal(CONFLICT, "moving", message)
    document = None if reference.learning and not is_partial else reference.document()
    if document is not None:
        return FOUND, document
    progress = [_describe_learning_progress(stream, *counts) for stream, counts in sorted(reference.learning.items())]
    learned = _join_limited_names(progress) if progress else "no predictions yet"
    return _build_reference_refusal(
        CONFLICT, "learning", f"Model {model!r} is still learning its reference: {learned}."
    )


def _describe_learning_progress(stream: str, count: int, required: int) -> str:
    if count < required:
        return f"{stream} has {count} of {required} values"
    return f"{stream} has {required} values, but its burstiness or steadiness is not estimated yet"


def _build_reference_refusal(status: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": message, "reason": reason}


def _join_limited_names(names: Sequence[str]) -> str:
    listed = ", ".join(name or "(no version)" for name in names[:MAX_LISTED])
    return f"{listed} and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else listed
