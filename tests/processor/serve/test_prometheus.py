from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from otel_mlmon import semconv
from otel_mlmon.processor.self_telemetry import MetricValue, SelfTelemetry
from otel_mlmon.processor.serve.prometheus import build_prometheus_name, create_metrics_page
from otel_mlmon.semconv import Metric


def metric(name: str, unit: str, instrument: semconv.Instrument = "gauge") -> Metric:
    return Metric(name=name, instrument=instrument, unit=unit, description='What "it" is.\nMore \\.')


def render(values: Sequence[MetricValue]) -> str:
    return create_metrics_page(lambda: values)().decode()


@pytest.mark.parametrize(
    ("definition", "name"),
    [
        (semconv.DRIFT_SCORE, "ml_drift_score"),
        (semconv.ALERT_STATE, "ml_alert_state"),
        (semconv.ACCURACY, "ml_model_accuracy_estimated_ratio"),
        (semconv.RECEIVED_POINTS, "otel_mlmon_processor_received_points_total"),
        (semconv.REQUESTS_PENDING, "otel_mlmon_processor_requests_pending_bytes"),
        (semconv.FAILURES, "otel_mlmon_failures_total"),
        (metric("ml.inference.duration", "s"), "ml_inference_duration_seconds"),
        (metric("a.delay", "ms"), "a_delay_milliseconds"),
        (metric("a.seconds", "s"), "a_seconds"),
        (metric("a.used", "By"), "a_used_bytes"),
        (metric("a.share", "1"), "a_share_ratio"),
        (metric("a.count", "1", "counter"), "a_count_total"),
        (metric("a.time", "s", "observable_counter"), "a_time_seconds_total"),
        (metric("a.total", "{x}", "counter"), "a_total"),
        (metric("2.a--b", "{x}"), "_2_a_b"),
    ],
)
def test_names_follow_the_opentelemetry_rules(definition: Metric, name: str) -> None:
    assert build_prometheus_name(definition) == name


def test_the_page_groups_a_metric_and_escapes_what_must_be() -> None:
    first, second = metric("a", "{x}"), metric("b", "s", "counter")
    page = render(
        [
            MetricValue(metric=first, attributes={"ml.model.name": 'a"b\\c\nd', "z": "1"}, value=1.5),
            MetricValue(metric=second, value=3),
            MetricValue(metric=first, value=math.inf),
            MetricValue(metric=first, attributes={"x.y": "1", "x-y": "2"}, value=-math.inf),
            MetricValue(metric=first, attributes={"n": ""}, value=math.nan),
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
        "b_seconds_total 3.0\n"
    )


def test_the_page_is_read_again_at_every_request() -> None:
    telemetry = SelfTelemetry()
    page = create_metrics_page(telemetry.values)
    assert page() == b""
    for total in (1, 2):
        telemetry.add(semconv.REFERENCES, outcome="taken")
        assert page().decode().splitlines()[-1] == (
            f'otel_mlmon_processor_references_total{{outcome="taken"}} {total}.0'
        )


def test_prometheus_reads_every_metric_of_the_processor_with_its_type() -> None:
    metrics = dict.fromkeys((*semconv.PROCESSOR_METRICS, *semconv.PROCESSOR_SELF_METRICS))
    families = list(
        text_string_to_metric_families(
            render(
                [
                    MetricValue(metric=metric, attributes=dict.fromkeys(metric.attributes, "x"), value=number)
                    for number, metric in enumerate(metrics)
                ]
            )
        )
    )
    assert [(family.name, family.type, family.documentation) for family in families] == [
        (
            build_prometheus_name(metric).removesuffix("_total"),
            "counter" if metric.instrument in ("counter", "observable_counter") else "gauge",
            metric.description,
        )
        for metric in metrics
    ]
    assert [[sample.value for sample in family.samples] for family in families] == [[n] for n in range(len(metrics))]


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["ml.model.name", "reason", "n"]), st.text(), max_size=3), st.floats()
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["counter", "gauge"]),
)
@settings(deadline=None, max_examples=100)
def test_any_value_reads_back(series: list[tuple[dict[str, str], float]], instrument: semconv.Instrument) -> None:
    definition = metric("a.b", "{x}", instrument)
    page = render([MetricValue(metric=definition, attributes=labels, value=value) for labels, value in series])
    (family,) = text_string_to_metric_families(page)
    samples = [(sample.labels, repr(sample.value)) for sample in family.samples]
    assert samples == [
        ({key.replace(".", "_"): text for key, text in labels.items()}, repr(value)) for labels, value in series
    ]
    assert {sample.name for sample in family.samples} == {build_prometheus_name(definition)}
