"""OUT Loaded: a model that came into the process, in the words of its event."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.model_identity import Model, identify, model_name, stem
from otel_mlmon.instrumentation.runtime.call import Load, SessionInfo, stamp_of

MAX_HASHED_BYTES: Final = 64 * 2**20
"""A larger file is not hashed: a tenth of a second of one processor, and part of a file says nothing of its content."""

MAX_REFERENCE_CHARACTERS: Final = 3 * 2**20
"""A longer reference is not sent: receivers of OTLP over gRPC refuse messages above 4 MiB."""

_LOG: Final = logging.getLogger("otel_mlmon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One model in one session, or one that could not be loaded."""

    model: Model
    is_new: bool
    """False if only the session's execution providers changed."""
    ended_ns: int
    """As `time.perf_counter_ns` counts."""
    context: object
    """The OpenTelemetry context of the loading."""
    duration_s: float | None
    """None where nobody saw the session being created."""
    error_type: str | None
    requested: tuple[str, ...]
    """Execution providers asked for, in order; empty if not known or none."""
    providers: tuple[str, ...]
    """Those the session has, in order."""
    sha256: str
    """Hexadecimal, of all bytes of the model's file; empty if that cannot be said."""
    reference: str
    """The reference profile that the model carries, as it is; empty if none."""

    @property
    def has_fallen_back(self) -> bool:
        """Whether the first execution provider is not the one asked for first."""
        return bool(self.requested and self.providers) and self.requested[0] != self.providers[0]


def read_load(load: Load, *, version_of: Callable[[str], str]) -> Loaded:
    """What a load says, the model's file hashed.

    Runs on: the thread behind; reads a file.

    Args:
        load: As the host's thread saw it.
        version_of: What the developer says of the version of the model of a name; empty if nothing.
    """
    session = load.session
    return Loaded(
        model=model_of(load, version_of=version_of),
        is_new=load.is_new,
        ended_ns=load.ended_ns,
        context=load.context,
        duration_s=load.duration_s,
        error_type=load.error_type,
        requested=load.requested,
        providers=session.providers if session else (),
        sha256=_sha256(session, load) if session and load.is_new else "",
        reference=_reference(session) if session else "",
    )


def model_of(load: Load, *, version_of: Callable[[str], str]) -> Model:
    """The model that was loaded; of a session that was not created, what its file's name says."""
    if load.session is not None:
        return identify(load.session, version=version_of(model_name(load.session)))
    return Model(name=stem(load.path) or "unknown", version="", provider="", runtime_version="")


def _reference(session: SessionInfo) -> str:
    text = session.metadata.get(semconv.REFERENCE_METADATA_KEY, "")
    if len(text) <= MAX_REFERENCE_CHARACTERS:
        return text
    _LOG.warning("The reference profile of %s is too long to be announced.", model_name(session))
    return ""


def _sha256(session: SessionInfo, load: Load) -> str:
    """Of the bytes that were loaded, or of the file if it is still the one that was."""
    content = session.content() if session.content is not None else None
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest() if len(content) <= MAX_HASHED_BYTES else ""
    if load.stamp is None or load.stamp[0] > MAX_HASHED_BYTES or stamp_of(load.path) != load.stamp:
        return ""
    try:
        found = hashlib.sha256(Path(load.path).read_bytes()).hexdigest()
    except OSError:
        return ""
    return found if stamp_of(load.path) == load.stamp else ""
