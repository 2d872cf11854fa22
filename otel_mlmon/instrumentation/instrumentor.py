"""The entry point for `opentelemetry-instrument` and for OpenTelemetry's configuration file."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.instrumentation.settings import (
    InstrumentationSettings,
    ModelOptions,
    make_configuration_type,
    resolve_settings,
)
from otel_mlmon.options import suggest_name

_LOG: Final = logging.getLogger("otel_mlmon")

DISTRIBUTIONS: Final = (
    "onnxruntime >= 1.17",
    "onnxruntime-gpu >= 1.17",
    "onnxruntime-directml >= 1.17",
    "onnxruntime-openvino >= 1.17",
    "onnxruntime-qnn >= 1.17",
    "onnxruntime-rocm >= 1.17",
    "onnxruntime-training >= 1.17",
)
"""Any one of these brings the module `onnxruntime`."""

Configuration: Final = make_configuration_type(InstrumentationSettings, "Configuration", __name__)
"""The section `onnxruntime` of OpenTelemetry's configuration file: the options of `otel_mlmon.instrument` by name."""


class OnnxRuntimeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Starts `otel_mlmon.instrument()` for `opentelemetry-instrument`, which finds it by an entry point."""

    configuration: ClassVar[type[Any]] = Configuration

    def instrumentation_dependencies(self) -> Collection[str]:
        """Lists the PyPI distributions of onnxruntime, any of which suffices."""
        return DISTRIBUTIONS

    def _check_dependency_conflicts(self) -> None:
        """Reports no conflict, since a private build of onnxruntime has any name."""

    def _instrument(self, **options: Any) -> None:
        # An exception here would keep every instrumentation after this one from being loaded.
        from otel_mlmon.guard import guard

        with guard("instrument"):
            from otel_mlmon.instrumentation.lifecycle import instrument

            instrument(**_select_usable_options(options))

    def _uninstrument(self, **_: Any) -> None:
        from otel_mlmon.instrumentation.lifecycle import uninstrument

        uninstrument()


def _select_usable_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a configuration file without invalid ones, each of which is logged as a warning."""
    known = {entry.name for entry in fields(InstrumentationSettings)}
    usable: dict[str, Any] = {}
    for name, value in options.items():
        if value is None or name in {"skip_dep_check", "raise_exception_on_conflict"}:
            continue
        if name not in known:
            _LOG.warning("Option %s is ignored: there is no such option.%s", name, suggest_name(name, known))
            continue
        entries = value
        if name == "models" and isinstance(value, Mapping):
            described = ((model, _make_model_options(model, entry)) for model, entry in value.items())
            entries = {model: entry for model, entry in described if entry is not None}
        try:
            resolve_settings(InstrumentationSettings, {name: entries}, environ={})
        except ConfigurationError as error:
            _LOG.warning("Option %s is ignored: %s", name, error)
        else:
            usable[name] = entries
    return usable


def _make_model_options(model: str, entry: Any) -> Any:
    """Makes `ModelOptions` from a section of a configuration file; None, with a warning, if that is invalid."""
    if not isinstance(entry, Mapping):
        return entry
    try:
        return ModelOptions(**entry)
    except (ConfigurationError, TypeError) as error:
        _LOG.warning("Option models[%r] is ignored: %s", model, error)
        return None
