"""OUT ModelLoad: describes each model that was loaded into the process, once a session.

A session is announced when it is created, else at its first call that is decoded.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.decoder import DeclaredModelOptions
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.model_identity import (
    ModelIdentity,
    find_model_name,
    identify_model,
    name_model_by_file,
    read_file_stem,
)
from otel_mlmon.instrumentation.decode.output_reports import format_output_kinds
from otel_mlmon.instrumentation.runtime.call import Load, SessionInfo

MAX_SESSIONS: Final = 1024
"""Sessions remembered, and loads that wait, at most; a session that is no longer remembered is announced again."""

MAX_REFERENCE_CHARACTERS: Final = 3 * 2**20
"""A longer reference is not sent: receivers of OTLP over gRPC refuse messages above 4 MiB."""

_LOG: Final = logging.getLogger("otel_mlmon")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoad:
    """Describes a model that was loaded into a session, or that could not be loaded."""

    model: ModelIdentity
    is_new: bool
    """False if only the session's execution providers changed."""
    ended_ns: int
    """The end of the load, on the clock of `time.perf_counter_ns`."""
    context: object
    """The OpenTelemetry context of the load."""
    duration_s: float | None
    """None if the creation of the session was not observed."""
    error_type: str | None
    requested: tuple[str, ...]
    """Execution providers asked for, in order; empty if unknown or none."""
    providers: tuple[str, ...]
    """The session's execution providers, in order."""
    sha256: str
    """Hexadecimal, of all bytes of the model's file; empty if unknown."""
    reference: str
    """The reference profile in the model's metadata, unchanged; empty if there is none."""
    output_kinds: str
    """The expected kind of each output, with the reason; empty if the file does not say."""

    @property
    def has_fallen_back(self) -> bool:
        """Whether the model runs on another execution provider than the one asked for first."""
        return bool(self.requested and self.providers) and self.requested[0] != self.providers[0]


class ModelLoadDuration(NamedTuple):
    """How long the load of a model took, with the model's name and version, or the error that it ended in."""

    model: ModelIdentity
    duration_s: float
    error_type: str | None
    """The class of the exception if it was not loaded."""


class ModelLoadTracker:
    """Collects the loads of models that the application's threads recorded, for metrics and events.

    Runs on: `take_queued_loads`, `announce_session` and `take_load_durations` on one thread at a time;
    `take_load_announcements` likewise, beside them.

    Args:
        loads: The queue of the application's threads.
        is_suppressed: Whether the application had suppressed instrumentation in a context; such a load is ignored.
        options: Returns what the developer declared of the model of a name.
        findings: Takes the files of the models, and what their outputs are expected to be.
    """

    def __init__(
        self,
        loads: deque[Load],
        *,
        is_suppressed: Callable[[object], bool],
        options: Callable[[str], DeclaredModelOptions],
        findings: ModelFindings,
    ) -> None:
        self._loads = loads
        self._is_suppressed = is_suppressed
        self._options = options
        self._findings = findings
        self._announced: dict[SessionInfo, None] = {}
        self.unmeasured: deque[Load] = deque(maxlen=MAX_SESSIONS)
        """Loads whose durations were not taken yet."""
        self.unannounced: deque[Load] = deque(maxlen=MAX_SESSIONS)
        """Loads whose event was not sent yet."""

    def take_queued_loads(self) -> None:
        """Reads the queued loads of models; called before the inference calls that followed them are decoded."""
        for load in [self._loads.popleft() for _ in range(len(self._loads))]:
            if not self._is_suppressed(load.context):
                # Of two contents of one version the first one has it.
                _identify_loaded_model(load, self._options, self._findings)
                self.unmeasured.append(load)
                self._queue_announcement(load)

    def announce_session(self, session: SessionInfo) -> None:
        """Records the model of a session for its event at the first call, if the session's creation was not seen.

        It was created before the instrumentation, before a fork, or while instrumentation was suppressed.
        """
        if session not in self._announced:
            self._queue_announcement(Load(session, session.path, time.perf_counter_ns(), None))

    def take_load_durations(self) -> list[ModelLoadDuration]:
        """Returns how long each load of a model since the last call took, where that was measured."""
        loads = [self.unmeasured.popleft() for _ in range(len(self.unmeasured))]
        return [
            ModelLoadDuration(
                _identify_loaded_model(load, self._options, self._findings), load.duration_s, load.error_type
            )
            for load in loads
            if load.duration_s is not None
        ]

    def take_load_announcements(self) -> Iterator[ModelLoad]:
        """Yields each loaded model whose event was not sent yet; reads the model's file."""
        while self.unannounced:
            yield describe_model_load(self.unannounced.popleft(), options=self._options, findings=self._findings)

    def _queue_announcement(self, load: Load) -> None:
        if load.session is not None:
            if len(self._announced) >= MAX_SESSIONS:
                del self._announced[next(iter(self._announced))]
            self._announced[load.session] = None
        self.unannounced.append(load)


def describe_model_load(
    load: Load, *, options: Callable[[str], DeclaredModelOptions], findings: ModelFindings
) -> ModelLoad:
    """Describes the load of a model for its event, with a hash of the model's file.

    Runs on: the worker thread; reads a file.

    Args:
        load: The load as the application's thread recorded it.
        options: Returns what the developer declared of the model of a name.
        findings: Takes the model's file, and what its outputs are expected to be.
    """
    session = load.session
    model = _identify_loaded_model(load, options, findings)
    output_kinds = ""
    if session and load.is_new:
        findings.note_model_file(
            model.model_key, session.path if not session.model_name.strip() else "", session.graph().digest
        )
        output_kinds = format_output_kinds(
            findings.outputs.expect_reports(model.model_key, session, options(model.name).output_kind)
        )
    return ModelLoad(
        model=model,
        is_new=load.is_new,
        ended_ns=load.ended_ns,
        context=load.context,
        duration_s=load.duration_s,
        error_type=load.error_type,
        requested=load.requested,
        providers=session.providers if session else (),
        sha256=_find_file_sha256(session) if session and load.is_new else "",
        reference=_read_reference_profile(session) if session else "",
        output_kinds=output_kinds,
    )


def _identify_loaded_model(
    load: Load, options: Callable[[str], DeclaredModelOptions], findings: ModelFindings
) -> ModelIdentity:
    if load.session is not None:
        version = options(find_model_name(load.session)).version
        return identify_model(load.session, version=version, separate=findings.separate_version)
    return ModelIdentity(
        name=name_model_by_file(load.path) or read_file_stem(load.path) or "unknown",
        version="",
        provider="",
        runtime_version="",
    )


def _read_reference_profile(session: SessionInfo) -> str:
    text = session.metadata.get(semconv.REFERENCE_METADATA_KEY, "")
    if len(text) <= MAX_REFERENCE_CHARACTERS:
        return text
    _LOG.warning(
        "Model %s: its reference profile is longer than %d characters and is not sent.",
        find_model_name(session),
        MAX_REFERENCE_CHARACTERS,
    )
    return ""


def _find_file_sha256(session: SessionInfo) -> str:
    graph = session.graph()
    return graph.digest if graph.is_digest_complete else ""
