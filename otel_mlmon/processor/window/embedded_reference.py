"""Decodes the reference profile that a model file carries in itself."""

from __future__ import annotations

import logging
from typing import Final

from otel_mlmon.errors import ProfileError
from otel_mlmon.processor.receive.data_point import ModelLoaded
from otel_mlmon.reference.embedding import decode_profile
from otel_mlmon.reference.profile import Profile

_LOG: Final = logging.getLogger("otel_mlmon.processor")


def decode_embedded_reference(loaded: ModelLoaded) -> Profile | None:
    """Decodes the reference profile that a model carries; None, and a warning, if the profile cannot be used."""
    model = loaded.model
    try:
        profile = decode_profile(loaded.reference)
    except ProfileError as error:
        _LOG.warning("The reference that model %s %s carries is refused: %s", model.name, model.version, error)
        return None
    if profile.version and model.version and profile.version != model.version:
        _LOG.warning(
            "Model %s %s carries the reference of version %s: it is refused.",
            model.name,
            model.version,
            profile.version,
        )
        return None
    return profile
