from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.processor.self_telemetry import SelfTelemetry
from otel_mlmon.processor.serve.prometheus import Sample, name_of, render
from otel_mlmon.semconv import Metric


def metric(name: str, unit: str, instrument: semconv.Instrument = "gauge") -> Metric:
    return Metric(name=name, instrument=instrument, unit=unit, description='What "it" is.\nMore \\.')


@pytest.mark.parametrize(
    ("given_metric", "name"),
    [
        (semconv.DRIFT_SCORE, "ml_drift_score"),
        (semconv.ALERT_STATE, "ml_alert_state"),
        (metric("ml.inference.duration", "s"), "ml_inference_duration_seconds"),
        (metric("a.seconds", "s"), "a_seconds"),
        (metric("a.used", "By"), "a_used_bytes"),
        (metric("a.share", "1"), "a_share_ratio"),
        (metric("a.count", "1", "counter"), "a_count_total"),
        (metric("a.time", "s", "observable_counter"), "a_time_seconds_total"),
        (metric("a.total", "{x}", "counter"), "a_total"),
        (metric("2.a--b", "{x}"), "_2_a_b"),
    ],
)
def test_names_follow_the_opentelemetry_rules(given_metric: Metric, name: str) -> None:
    assert name_of(given_metric) == name


def test_the_page_groups_a_metric_and_escapes_what_must_be() -> None:
    first, second = metric("a", "{x}"), metric("b", "s", "counter")
    page = render(
        [
            Sample(first, {"ml.model.name": 'a"b\\c\nd', "z": "1"}, 1.5),
            Sample(second, {}, 3),
            Sample(first, {}, math.inf),
            Sample(first, {"x.y": "1", "x-y": "2"}, -math.inf),
            Sample(first, {"n": ""}, math.nan),
        ]
    )
    assert page == (
        '# HELP a What "it" is.\\nMore \\\\.\n'
        "# TYPE a gauge\n"
        'a{ml_model_name="a\\"b\\\\c\\nd",z="1"} 1.5\n'
        "a +Inf\n"
        'a{x_y="2;1"} -Inf\n'
        'a{n=""} NaN\n'
        '# HELP b_seconds_total What "it" is.\\nMore \\\\.\n'
        "# TYPE b_seconds_total counter\n"
        "b_seconds_total 3\n"
    )


def test_self_telemetry_renders_as_it_is() -> None:
    telemetry = SelfTelemetry(descriptions={"points.accepted": "Points taken."})
    telemetry.add("points.accepted", 3, signal="metrics")
    telemetry.set("streams", 2)
    assert render(Sample(*reading) for reading in telemetry.snapshot()) == (
        "# HELP otel_mlmon_processor_points_accepted_total Points taken.\n"
        "# TYPE otel_mlmon_processor_points_accepted_total counter\n"
        'otel_mlmon_processor_points_accepted_total{signal="metrics"} 3\n'
        "# HELP otel_mlmon_processor_streams streams\n"
        "# TYPE otel_mlmon_processor_streams gauge\n"
        "otel_mlmon_processor_streams 2\n"
    )


@given(st.text(), st.floats())
@settings(deadline=None, max_examples=100)
def test_any_value_is_one_line_that_reads_back(label: str, value: float) -> None:
    line = render([Sample(metric("a", "{x}"), {"n": label}, value)]).removesuffix("\n").split("\n", 2)[2]
    assert "\n" not in line
    head, _, number = line.rpartition(" ")
    inside = head.removeprefix('a{n="').removesuffix('"}')
    unescaped = inside.replace("\\\\", "\0\0").replace("\\n", "\n").replace('\\"', '"').replace("\0\0", "\\")
    assert "\0" in label or unescaped == label
    assert float(number) == value or math.isnan(value)
