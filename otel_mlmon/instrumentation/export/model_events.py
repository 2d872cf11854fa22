"""`ml.model.loaded` and `ml.execution_provider.fallback`: what came into the process, and what it runs on."""

from __future__ import annotations

import logging
from typing import Final, cast

from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.model_loading import Loaded
from otel_mlmon.instrumentation.export.context import plain
from otel_mlmon.version import __version__

Attributes = dict[str, str | float]

MAX_TOLD: Final = 1024
"""Fallbacks that are remembered, so that each is logged once."""

_LOG: Final = logging.getLogger("otel_mlmon")


class ModelEvents:
    """Writes the events of models.

    Runs on: the thread behind.

    Args:
        provider: Whose logger is used; None where the host switched events off, which leaves the log line.
    """

    def __init__(self, provider: LoggerProvider | None) -> None:
        self._logger = provider.get_logger(semconv.SCOPE, __version__) if provider else None
        self._told: set[tuple[str, str, str]] = set()

    def emit(self, loaded: Loaded, *, offset_ns: int) -> None:
        """Say that a model was loaded, and whether it runs on something else than was asked for.

        Args:
            loaded: What came; of one that failed nothing is said here, its host has the exception.
            offset_ns: Unix time minus `time.perf_counter_ns`.
        """
        if loaded.error_type is not None:
            return
        if loaded.is_new:
            self._write(semconv.EVENT_MODEL_LOADED, SeverityNumber.INFO, loaded_attributes(loaded), loaded, offset_ns)
        if loaded.has_fallen_back:
            self._tell(loaded)
            attributes = _runs_on(loaded)
            self._write(semconv.EVENT_PROVIDER_FALLBACK, SeverityNumber.WARN, attributes, loaded, offset_ns)

    def _tell(self, loaded: Loaded) -> None:
        line = (loaded.model.name, loaded.requested[0], loaded.providers[0])
        if line not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(line)
            _LOG.warning("Model %s was asked to run on %s and runs on %s.", *line)

    def _write(
        self, name: str, severity: SeverityNumber, attributes: Attributes, loaded: Loaded, offset_ns: int
    ) -> None:
        if self._logger is None:
            return
        self._logger.emit(
            timestamp=loaded.ended_ns + offset_ns,
            observed_timestamp=loaded.ended_ns + offset_ns,
            context=cast("Context", plain(loaded.context)),
            severity_number=severity,
            severity_text=severity.name,
            event_name=name,
            attributes=attributes,
        )


def loaded_attributes(loaded: Loaded) -> Attributes:
    """What `ml.model.loaded` says; what is not known is not there."""
    said: Attributes = {
        **_runs_on(loaded),
        **loaded.model.runtime_attributes(),
        semconv.MODEL_FILE_SHA256: loaded.sha256,
        semconv.MODEL_REFERENCE: loaded.reference,
    }
    if loaded.duration_s is not None:
        said[semconv.MODEL_LOAD_DURATION] = loaded.duration_s
    return {name: value for name, value in said.items() if value != ""}


def _runs_on(loaded: Loaded) -> Attributes:
    """Lists as text, since not every back-end can search an array."""
    said: Attributes = {
        semconv.MODEL_NAME: loaded.model.name,
        semconv.MODEL_VERSION: loaded.model.version,
        semconv.EXECUTION_PROVIDER: loaded.model.provider,
        semconv.EXECUTION_PROVIDERS: ",".join(loaded.providers),
        semconv.EXECUTION_PROVIDERS_REQUESTED: ",".join(loaded.requested),
    }
    return {name: value for name, value in said.items() if value != ""}
