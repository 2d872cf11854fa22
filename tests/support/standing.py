"""A model's reference as the web port reads it, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otel_mlmon.types import ModelKey


@dataclass(frozen=True)
class Standing:
    """A reference of a model version for tests, in the shape of `processor.serve.references.ExportableReference`."""

    profile: dict[str, Any] | None = None
    learning: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    moving: Sequence[str] = ()
    relearnable: Sequence[str] = ()
    model: ModelKey = ModelKey("fraud", "1")  # noqa: RUF009 - immutable

    def document(self) -> dict[str, Any] | None:
        """Returns the reference profile."""
        return self.profile
