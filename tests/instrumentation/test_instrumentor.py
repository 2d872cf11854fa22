"""Wrong options of OpenTelemetry's entry point: said by name, and everything else holds; what is no option raises."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import otel_mlmon
from otel_mlmon import ConfigurationError, ModelOptions
from otel_mlmon.instrumentation.lifecycle import _ProcessInstrumentation
from otel_mlmon.instrumentation.settings import InstrumentationSettings
from tests.support import models


@pytest.fixture
def instrumentor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    entry = otel_mlmon.OnnxRuntimeInstrumentor()
    yield entry
    if entry.is_instrumented_by_opentelemetry:
        entry.uninstrument()


def running_settings() -> InstrumentationSettings:
    """The settings in use, of which a call is counted."""
    assert _ProcessInstrumentation.running is not None
    pipeline = _ProcessInstrumentation.running.pipeline
    ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
    assert pipeline.flush(30)
    assert pipeline.status().recorded_calls == 1
    return pipeline.settings


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"max_labls": 7}, "Option max_labls is ignored: there is no such option. Did you mean max_labels?"),
        ({"max_labels": "many"}, "Option max_labels is ignored: max_labels must be of type int, got 'many'."),
        ({"span_ratio": 2.0, "max_features": 3}, "Option span_ratio is ignored: span_ratio must be within 0 and 1"),
        ({"models": 5}, "Option models is ignored: models must be a mapping of names to ModelOptions, got 5."),
        ({"models": {"a": {"lables": ["x"]}, "b": {"version": "2"}}}, "Option models['a'] is ignored: "),
        ({"models": {"a": 3}}, "Option models is ignored: models['a'] must be ModelOptions, got int."),
        ({"tracer_provider": "x"}, "Option tracer_provider is ignored: "),
        ({"sentry": "maybe"}, "Option sentry is ignored: "),
        ({"flush_interval_s": None}, ""),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_used_is_said_and_the_others_hold(
    instrumentor: Any, options: dict[str, Any], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    instrumentor.instrument(**options)
    texts = warnings(caplog)
    assert [text[: len(warning)] for text in texts] == ([warning] if warning else []), texts
    settings = running_settings()
    assert settings.max_features == options.get("max_features", InstrumentationSettings().max_features)
    assert settings.models == ({"b": ModelOptions(version="2")} if "models['a'] is ignored" in warning else {})
    assert (settings.max_labels, settings.span_ratio) == (50, InstrumentationSettings().span_ratio)


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("OTEL_MLMON_MAX_LABELS", "many", "OTEL_MLMON_MAX_LABELS"),
        ("OTEL_MLMON_SPAN_RATIO", "200%", "OTEL_MLMON_SPAN_RATIO"),
        ("OTEL_MLMON_MAX_LABLES", "7", "OTEL_MLMON_MAX_LABELS"),
        ("OTEL_MLMON_SENTRY", "perhaps", "OTEL_MLMON_SENTRY"),
        ("OTEL_MLMON_FLUSH_INTERVAL_S", "nan", "OTEL_MLMON_FLUSH_INTERVAL_S"),
        ("OTEL_MLMON_BUFFER_BYTES", "-1", "OTEL_MLMON_BUFFER_BYTES"),
    ],
)
def test_a_wrong_variable_warns_and_is_ignored(
    instrumentor: Any,
    variable: str,
    value: str,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(variable, value)
    instrumentor.instrument()
    assert [word in text for text in warnings(caplog)] == [True]
    settings = running_settings()
    assert (settings.max_labels, settings.span_ratio) == (50, InstrumentationSettings().span_ratio)


def test_the_same_arguments_raise_where_a_developer_passes_them() -> None:
    with pytest.raises(ConfigurationError, match="max_labels must be of type int"):
        otel_mlmon.instrument(max_labels="many")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_labls"):
        otel_mlmon.instrument(max_labls=7)  # type: ignore[call-arg]
    assert _ProcessInstrumentation.running is None
