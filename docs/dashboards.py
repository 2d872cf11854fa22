"""Builds the Grafana dashboards of collector-config/grafana with Grafana's own SDK, for Grafana 10.1 and later.

`python -m docs.generate` writes them; `tests/e2e/test_prometheus.py` runs the queries against a real Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from otel_mlmon import semconv

_Panel: TypeAlias = "bargauge.Panel | stat.Panel | statetimeline.Panel | timeseries.Panel"
Query: TypeAlias = "tuple[str, str]"
"""PromQL, and the legend of its series."""

_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_MODEL: Final = 'ml_model_name="$model",ml_model_version=~"$version"'
_NAMED: Final = "{{ml_model_name}} {{ml_model_version}}"
_BY_MODEL: Final = "ml_model_name, ml_model_version"
_COLORS: Final = {
    "ok": "green", "drift": "red", "firing": "red", "pending": "orange", "error": "purple", "learning": "blue",
    "weak": "light-blue", "no_data": "text", "unknown": "text",
}  # fmt: skip


def _latency(quantile: float, selector: str) -> str:
    buckets = f"ml_inference_duration_seconds_bucket{{{selector}}}"
    return f"histogram_quantile({quantile}, sum by (le, {_BY_MODEL}) (rate({buckets}[$__rate_interval])))"


def _call_rate(selector: str) -> str:
    return f"sum by ({_BY_MODEL}) (rate(ml_inference_duration_seconds_count{{{selector}}}[$__rate_interval]))"


def _error_ratio(selector: str) -> str:
    failed = f'{selector},error_type!=""' if selector else 'error_type!=""'
    calls = _call_rate(selector)
    return f"({_call_rate(failed)} or 0 * {calls}) / {calls}"


def _mapping(states: Mapping[str, int]) -> list[models.ValueMapping]:
    options = {
        str(value): models.ValueMappingResult(text=name.replace("_", " "), color=_COLORS[name], index=index)
        for index, (name, value) in enumerate(states.items())
    }
    return [models.ValueMap(options=options)]


def _finish(panel: _Panel, title: str, description: str, queries: Sequence[Query], *, is_instant: bool = False) -> None:
    panel.title(title).description(description).datasource(_SOURCE)
    for number, (expression, legend) in enumerate(queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        panel.with_target(query.datasource(_SOURCE).instant() if is_instant else query.datasource(_SOURCE).range())


def _lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    top: float | None = None,
    line: float | None = None,
) -> timeseries.Panel:
    panel = timeseries.Panel().unit(unit).show_points(common_models.VisibilityMode.NEVER)
    panel.legend(
        common.VizLegendOptions().show_legend(show_legend=True).display_mode(common_models.LegendDisplayMode.LIST)
    )
    if line is None:
        panel.min(0)
    else:
        steps = [models.Threshold(color="transparent"), models.Threshold(value=line, color="red")]
        panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        style = common_models.GraphTresholdsStyleMode.LINE
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    if top is not None:
        panel.max(top)
    _finish(panel, title, description, queries)
    return panel


def _states(title: str, description: str, states: Mapping[str, int], query: Query) -> statetimeline.Panel:
    panel = statetimeline.Panel().mappings(_mapping(states)).show_value(common_models.VisibilityMode.AUTO)
    _finish(panel, title, description, [query])
    return panel


def _number(title: str, description: str, expression: str, *, is_bad: bool) -> stat.Panel:
    steps = [models.Threshold(color="green" if is_bad else "text")]
    if is_bad:
        steps.append(models.Threshold(value=1, color="red"))
    panel = stat.Panel().color_mode(common_models.BigValueColorMode.VALUE)
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    _finish(panel, title, description, [(expression, "")], is_instant=True)
    return panel


def _place(panel: _Panel, *, x: int, y: int, width: int, height: int) -> _Panel:
    return panel.grid_pos(models.GridPos(x=x, y=y, w=width, h=height))


def _variables(builder: dashboard.Dashboard) -> dashboard.Dashboard:
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    return builder.with_variable(source).time("now-1h", "now").refresh("30s").tags(["otel-mlmon"]).editable()


def _choice(name: str, label: str, query: str, *, has_all: bool) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(label).query(query).datasource(_SOURCE)
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    return variable.include_all(include_all=True).all_value(".*") if has_all else variable


def build_fleet() -> str:
    """Returns the dashboard of all models and of the processors themselves, as JSON."""
    builder = _variables(dashboard.Dashboard("Models").uid("otel-mlmon-fleet"))
    builder.description("Every model that otel-mlmon monitors, and the processors that do it.")
    panels = [
        _place(_number("Models", "Models and versions.", f"count(count by ({_BY_MODEL}) (ml_drift_state))",
                       is_bad=False), x=0, y=0, width=6, height=4),
        _place(_number("Rules that fire", "Alerts of all models.", "sum(ml_alert_state == bool 2)", is_bad=True),
               x=6, y=0, width=6, height=4),
        _place(_number("Streams in drift", "Of all models.", "sum(ml_drift_state == bool 1)", is_bad=True),
               x=12, y=0, width=6, height=4),
        _place(_number("Processors away", "Processors that Prometheus cannot scrape.",
                       'sum(up{job="otel-mlmon"} == bool 0)', is_bad=True), x=18, y=0, width=6, height=4),
        _place(_states("Alerts by model and rule", "The states of all rules over time.", semconv.ALERT_STATES,
                       (f"max by ({_BY_MODEL}, ml_alert_rule) (ml_alert_state)", _NAMED + ": {{ml_alert_rule}}")),
               x=0, y=4, width=24, height=9),
        _place(_lines("Most evidence of drift", "The streams nearest to the alarm line at 0, in powers of ten.",
                      (f"topk(10, max by ({_BY_MODEL}, ml_drift_stream) (ml_drift_evidence))",
                       _NAMED + " {{ml_drift_stream}}"), line=0), x=0, y=13, width=12, height=8),
        _place(_lines("Estimated accuracy", "From confidences; needs a reference with labelled data.",
                      ("ml_model_accuracy_estimated_ratio", _NAMED), unit="percentunit", top=1),
               x=12, y=13, width=12, height=8),
        _place(_lines("Calls a second", "Needs the application's metrics in this Prometheus.",
                      (_call_rate(""), _NAMED), unit="reqps"), x=0, y=21, width=8, height=8),
        _place(_lines("Latency, p95", "Needs the application's metrics in this Prometheus.",
                      (_latency(0.95, ""), _NAMED), unit="s"), x=8, y=21, width=8, height=8),
        _place(_lines("Failed calls", "Needs the application's metrics in this Prometheus.",
                      (_error_ratio(""), _NAMED), unit="percentunit", top=1), x=16, y=21, width=8, height=8),
        _place(_lines("Points received by the processors", "Accepted ones are counted; the others are lost or ignored.",
                      ("sum by (outcome) (rate(otel_mlmon_processor_received_points_total[$__rate_interval]))",
                       "{{outcome}}"), unit="short"), x=0, y=29, width=8, height=8),
        _place(_lines("Time to work off what waits", "By processor; it refuses requests where this grows.",
                      ("otel_mlmon_processor_queue_duration_seconds", "{{instance}}"), unit="s"),
               x=8, y=29, width=8, height=8),
        _place(_lines("Notifications that wait", "By notifier.",
                      ("sum by (notifier) (otel_mlmon_processor_notifications_pending)", "{{notifier}}")),
               x=16, y=29, width=8, height=8),
    ]  # fmt: skip
    return _encode(builder, panels)


def build_model() -> str:
    """Returns the dashboard of one model, as JSON."""
    builder = _variables(dashboard.Dashboard("Model").uid("otel-mlmon-model"))
    builder.description("One model that otel-mlmon monitors: its rules, its streams, its calls.")
    versions = 'label_values(ml_drift_state{ml_model_name="$model"}, ml_model_version)'
    builder.with_variable(_choice("model", "Model", "label_values(ml_drift_state, ml_model_name)", has_all=False))
    builder.with_variable(_choice("version", "Version", versions, has_all=True))
    stream = "{{ml_model_version}} {{ml_drift_stream}}"
    labels = f"sum by (ml_prediction_label) (rate(ml_predictions_total{{{_MODEL}}}[$__rate_interval]))"
    confidence = "ml_prediction_confidence"
    mean = " / ".join(
        f"sum by ({_BY_MODEL}) (rate({confidence}_{part}{{{_MODEL}}}[$__rate_interval]))" for part in ("sum", "count")
    )
    panels = [
        _place(_states("Rules", "The states of this model's rules over time.", semconv.ALERT_STATES,
                       (f"ml_alert_state{{{_MODEL}}}", "{{ml_model_version}} {{ml_alert_rule}}")),
               x=0, y=0, width=12, height=9),
        _place(_states("Streams", "The states of this model's streams over time.", semconv.DRIFT_STATES,
                       (f"ml_drift_state{{{_MODEL}}}", stream)), x=12, y=0, width=12, height=9),
        _place(_lines("Evidence of drift", "In powers of ten; a stream is in drift from the alarm line at 0 on.",
                      (f"ml_drift_evidence{{{_MODEL}}}", stream), line=0), x=0, y=9, width=12, height=9),
        _place(_lines("Estimated accuracy", "With its 95 % interval; needs a reference with labelled data.",
                      (f"ml_model_accuracy_estimated_ratio{{{_MODEL}}}", "{{ml_model_version}}"),
                      (f"ml_model_accuracy_estimated_low_ratio{{{_MODEL}}}", "{{ml_model_version}} low"),
                      (f"ml_model_accuracy_estimated_high_ratio{{{_MODEL}}}", "{{ml_model_version}} high"),
                      unit="percentunit", top=1), x=12, y=9, width=12, height=9),
        _place(_lines("Population stability index", "Familiar, and without a false-alarm rate: look at the evidence.",
                      (f'ml_drift_score{{{_MODEL},ml_drift_statistic="psi"}}', stream)),
               x=0, y=18, width=12, height=8),
        _place(_lines("Values in the rolling window", "What each stream is judged by.",
                      (f"ml_drift_window_size{{{_MODEL}}}", stream)), x=12, y=18, width=12, height=8),
        _place(_lines("Shares of the labels", "Needs the application's metrics in this Prometheus.",
                      (f"{labels} / scalar(sum({labels}))", "{{ml_prediction_label}}"), unit="percentunit", top=1),
               x=0, y=26, width=12, height=8),
        _place(_lines("Mean confidence", "Needs the application's metrics in this Prometheus.",
                      (mean, "{{ml_model_version}}"), unit="percentunit", top=1), x=12, y=26, width=12, height=8),
        _place(_lines("Latency", "Needs the application's metrics in this Prometheus.",
                      *((_latency(quantile, _MODEL), f"{{{{ml_model_version}}}} p{quantile * 100:.0f}")
                        for quantile in (0.5, 0.95, 0.99)), unit="s"), x=0, y=34, width=8, height=8),
        _place(_lines("Calls a second", "Needs the application's metrics in this Prometheus.",
                      (_call_rate(_MODEL), "{{ml_model_version}}"), unit="reqps"), x=8, y=34, width=8, height=8),
        _place(_lines("Failed calls", "Needs the application's metrics in this Prometheus.",
                      (_error_ratio(_MODEL), "{{ml_model_version}}"), unit="percentunit", top=1),
               x=16, y=34, width=8, height=8),
    ]  # fmt: skip
    return _encode(builder, panels)


def _encode(builder: dashboard.Dashboard, panels: Sequence[_Panel]) -> str:
    for panel in panels:
        builder.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=1).encode(builder.build()) + "\n"
