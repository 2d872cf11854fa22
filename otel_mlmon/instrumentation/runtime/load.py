"""OUT Load: a model that came into the process, or changed what it runs on, as the host's thread saw it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from otel_mlmon.instrumentation.runtime.call import SessionInfo

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds of a file."""


class Load(NamedTuple):
    """One session created, or not; or put on other execution providers; or first seen at a call."""

    session: SessionInfo | None
    """None if it failed."""
    path: str
    """The model's file; empty if it came as bytes. Never leaves the process."""
    ended_ns: int
    """As `time.perf_counter_ns` counts."""
    context: object
    """The OpenTelemetry context, opaque here; None where there was none."""
    is_new: bool = True
    """False if only its execution providers changed."""
    duration_s: float | None = None
    """None where nobody saw the session being created."""
    error_type: str | None = None
    requested: tuple[str, ...] = ()
    """The execution providers asked for, in order; empty if that is not known."""
    stamp: Stamp | None = None
    """Of the file before it was loaded; None if it was not seen then."""


def provider_names(providers: Any) -> tuple[str, ...]:
    """The names in the argument `providers` of a session: a sequence of names, or of pairs of name and options."""
    if not isinstance(providers, Sequence) or isinstance(providers, str):
        return ()
    return tuple(str(entry[0] if isinstance(entry, tuple) and entry else entry) for entry in providers)


def path_of(source: object) -> str:
    """The argument `path_or_bytes` of a session as a path; empty if it is none."""
    found = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
    return found if isinstance(found, str) else ""


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file; None if there is none."""
    if not path:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
