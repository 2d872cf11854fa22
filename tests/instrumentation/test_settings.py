"""One field of `InstrumentationSettings` is one option: everything else about an option follows from it."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import logging
import math
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import otel_mlmon
from docs import generate
from otel_mlmon.cli import settings as command
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.instrumentation.instrumentor import Configuration
from otel_mlmon.instrumentation.lifecycle import _copy_settings_signature
from otel_mlmon.instrumentation.settings import (
    OPTIONS,
    InstrumentationSettings,
    ModelOptions,
    make_configuration_type,
    resolve_settings,
)
from otel_mlmon.options import check_positive, declare_option, list_options

ROOT = Path(__file__).parent.parent.parent
PROVIDERS = ["tracer_provider", "meter_provider", "logger_provider"]

EXTENDED: Any = make_dataclass(
    "ExtendedSettings",
    [("probe_interval_s", float, declare_option(default=3.0, doc="Time between two probes.", check=check_positive))],
    bases=(InstrumentationSettings,),
    frozen=True,
    slots=True,
    kw_only=True,
)
"""The settings with one more row."""


def resolved(**arguments: Any) -> InstrumentationSettings:
    return resolve_settings(InstrumentationSettings, arguments, environ={})[0]


def settings_page(options: Any) -> str:
    return generate.settings_page(options)


def test_a_new_row_is_an_argument_of_the_signature_and_of_the_documentation() -> None:
    @_copy_settings_signature(EXTENDED)
    def start(**arguments: Any) -> dict[str, Any]:
        """Starts.

        Args:
        {options}
        """
        return arguments

    parameter = inspect.signature(start).parameters["probe_interval_s"]
    assert (parameter.kind, parameter.default, parameter.annotation) == (inspect.Parameter.KEYWORD_ONLY, 3.0, float)
    assert "probe_interval_s: Time between two probes." in [line.strip() for line in (start.__doc__ or "").splitlines()]
    assert start(probe_interval_s=1.0) == {"probe_interval_s": 1.0}
    with pytest.raises(TypeError, match="unexpected keyword argument 'probe_interval'"):
        start(probe_interval=1.0)


def test_a_new_row_is_read_from_the_argument_the_environment_and_the_default() -> None:
    environ = {"OTEL_MLMON_PROBE_INTERVAL_S": "2.5"}
    settings, origins = resolve_settings(EXTENDED, {"probe_interval_s": 1.5}, environ=environ)
    assert (settings.probe_interval_s, origins["probe_interval_s"]) == (1.5, "argument")
    settings, origins = resolve_settings(EXTENDED, {}, environ=environ)
    assert (settings.probe_interval_s, origins["probe_interval_s"]) == (2.5, "environment")
    settings, origins = resolve_settings(EXTENDED, {}, environ={})
    assert (settings.probe_interval_s, origins["probe_interval_s"]) == (3.0, "default")
    with pytest.raises(ConfigurationError) as error:
        resolve_settings(EXTENDED, {"probe_interval_s": -1.0, "max_labels": True}, environ={})
    assert error.value.faults == (
        "max_labels must be of type int, got True.",
        "probe_interval_s must be above 0, got -1.0.",
    )


def test_a_new_row_is_in_the_documentation_the_command_and_the_configuration_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = "| `probe_interval_s` | `OTEL_MLMON_PROBE_INTERVAL_S` | `3.0` | Time between two probes. |"
    assert row in settings_page(list_options(EXTENDED)).splitlines()
    monkeypatch.setenv("OTEL_MLMON_PROBE_INTERVAL_S", "2.5")
    assert command.run_command(argparse.Namespace(json=True, model=None), settings_type=EXTENDED) == 0
    assert json.loads(capsys.readouterr().out)["probe_interval_s"] == {
        "value": 2.5,
        "origin": "environment",
        "variable": "OTEL_MLMON_PROBE_INTERVAL_S",
    }
    section = make_configuration_type(EXTENDED, "Section", __name__)
    assert get_type_hints(section)["probe_interval_s"] == float | None
    assert (section().probe_interval_s, section(probe_interval_s=1.5).probe_interval_s) == (None, 1.5)


def test_the_signature_the_documentation_and_the_configuration_have_every_option() -> None:
    names = [option.name for option in OPTIONS]
    parameters = inspect.signature(otel_mlmon.instrument).parameters
    assert list(parameters) == [*PROVIDERS, "models", *names]
    assert {name: parameters[name].default for name in names} == {option.name: option.default for option in OPTIONS}
    documentation = inspect.getdoc(otel_mlmon.instrument) or ""
    assert [name for name in parameters if f"    {name}: " not in documentation] == []
    assert [entry.name for entry in dataclasses.fields(Configuration)] == ["models", *names]
    assert dataclasses.asdict(Configuration()) == {"models": {}, **dict.fromkeys(names)}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("span_ratio", "must be of type float, got 'x'"),
        ("max_labels", "must be of type int, got 'x'"),
        ("onnxruntime_telemetry", "must be of type bool, got 'x'"),
        ("sentry", "must be one of auto, native, otlp, off, got 'x'"),
    ],
)
def test_a_wrong_variable_warns_and_counts_as_unset(name: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    variable = f"OTEL_MLMON_{name.upper()}"
    settings, origins = resolve_settings(InstrumentationSettings, {}, environ={variable: "x"})
    assert (settings, origins[name]) == (InstrumentationSettings(), "default")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"{variable} is ignored: it {fault}.")
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("TRUE", True), (" yes ", True), ("1", True), ("off", False), ("No", False), (" ", True)]
)
def test_truth_values_of_variables(text: str, value: bool) -> None:
    environ = {"OTEL_MLMON_ONNXRUNTIME_TELEMETRY": text}
    settings, _ = resolve_settings(InstrumentationSettings, {}, environ=environ)
    assert settings.onnxruntime_telemetry is value


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("span_ratio", [0, 0.0, 1.0], [-0.1, 1.1, math.nan, True, None]),
        ("spans_per_second", [0.0, 1e9], [-0.1, math.inf]),
        ("events_per_second", [0.0, 1e9], [-0.1, math.inf]),
        ("latency_threshold_s", [1e-9, math.inf], [0.0, -1.0]),
        ("confidence_floor", [0.0, 1.0], [-0.1, 1.1]),
        ("max_labels", [1], [0, 1.0]),
        ("max_features", [0], [-1]),
        ("buffer_records", [1], [0]),
        ("buffer_bytes", [1], [0]),
        ("flush_interval_s", [1e-3], [0.0, math.inf]),
        ("shutdown_timeout_s", [0.0], [-1.0, math.inf]),
        ("sentry", ["auto", "native", "otlp", "off"], ["on", None]),
        ("sentry_traces_sample_rate", [None, 0.0, 1.0], [1.1, "x"]),
        ("model_name", ["m", str], [3, None]),
    ],
)
def test_which_arguments_are_allowed(name: str, allowed: list[Any], refused: list[Any]) -> None:
    assert [getattr(resolved(**{name: value}), name) for value in allowed] == allowed
    for value in refused:
        with pytest.raises(ConfigurationError, match=f"^{name} must be .*, got "):
            resolved(**{name: value})


def test_a_model_without_thresholds_has_the_general_ones() -> None:
    own = ModelOptions(version="2", latency_threshold_s=0.5, confidence_floor=0.0)
    settings = resolved(models={"own": own, "other": ModelOptions(version="3")}, confidence_floor=0.25)
    assert settings.find_model_options("own") == replace(own, text="hash", text_key="")
    assert settings.find_model_options("other") == ModelOptions(
        version="3", latency_threshold_s=math.inf, confidence_floor=0.25, text="hash", text_key=""
    )
    assert settings.find_model_options("unknown") == ModelOptions(
        latency_threshold_s=math.inf, confidence_floor=0.25, text="hash", text_key=""
    )


@dataclass(frozen=True)
class Foreign:
    """No description of a model."""


def test_a_model_is_described_by_model_options_only() -> None:
    with pytest.raises(ConfigurationError, match=r"models\['m'\] must be ModelOptions, got Foreign"):
        resolved(models={"m": Foreign()})


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("OTEL_MLMON_SPANS_PER_SECONDS", " Did you mean OTEL_MLMON_SPANS_PER_SECOND?"),
        ("OTEL_MLMON_MAX_LABEL", " Did you mean OTEL_MLMON_MAX_LABELS?"),
        ("otel_mlmon_sentri", " Did you mean OTEL_MLMON_SENTRY?"),
        ("OTEL_MLMON_QQQQQQQQQQQQQQQQQQQQQQQQ", ""),
    ],
)
def test_a_misspelt_variable_is_one_warning_with_the_nearest_name(
    variable: str, nearest: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {variable: "1", "OTEL_SERVICE_NAME": "shop", "OTEL_MLMON_ADMIN_TOKEN": "t"}
    settings, _ = resolve_settings(InstrumentationSettings, {}, environ=environ)
    assert settings == InstrumentationSettings()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{variable} is ignored: there is no such option.{nearest}")
    ]
