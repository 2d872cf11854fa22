"""Defines the section `alerts` of the configuration file, without its notifiers."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from otel_mlmon.processor.config.section import ConfigSection, Count, Duration, FalseAlarmRate, OptionalUrl, Url
from otel_mlmon.processor.config.units import FalseAlarms, format_duration, parse_duration

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PLACES: Final = ("model", "version", "environment", "rule")
"""Names in braces that an address may have, to be filled in."""


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be a time zone such as UTC or Europe/Berlin") from None
    return name


def _check_placeholders(url: str | None, names: tuple[str, ...] = PLACES) -> str | None:
    unknown = sorted(set(re.findall(r"\{(\w+)\}", url or "")).difference(names))
    if unknown:
        raise ValueError(f"has {{{unknown[0]}}}; what can be filled in is {', '.join(f'{{{name}}}' for name in names)}")
    return url


def _check_trace_address(url: str | None) -> str | None:
    if url is not None and "{trace_id}" not in url:
        raise ValueError("must have {trace_id} where the id of the trace belongs")
    return _check_placeholders(url, ("trace_id", *PLACES))


def _parse_hold_time(value: object) -> float | None:
    return None if value in (None, "auto") else parse_duration(value)


def _format_hold_time(seconds: float | None) -> str:
    return "auto" if seconds is None else format_duration(seconds)


HoldDuration = Annotated[float | None, BeforeValidator(_parse_hold_time), PlainSerializer(_format_hold_time)]
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class MaintenanceSection(ConfigSection):
    """A time of the week in which nobody is notified of alerts."""

    model: str = Field(default="*", min_length=1, description="Which models, a name or pattern.")
    rule: str = Field(default="*", min_length=1, description="Which rules, a name or pattern.")
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=DAYS, description="The days on which it begins."
    )
    start: ClockTime = Field(description="When it begins, such as `22:00`.")
    end: ClockTime = Field(description="When it ends; at or before its start is on the day after.")
    timezone: Annotated[str, AfterValidator(_check_timezone)] = Field(
        default="UTC", description="The time zone of start and end."
    )


class AlertSection(ConfigSection):
    """The settings of when an alert fires and when it is resolved."""

    false_alarms: FalseAlarmRate = Field(
        default=FalseAlarms(count=1, per_s=30 * 86400.0),
        description="The false-alarm budget over all models and streams.",
    )
    fleet_streams: Count | None = Field(
        default=None,
        ge=1,
        description="Streams of all processors together, among which they share the budget; null is one processor.",
    )
    for_s: Duration = Field(
        default=0.0, alias="for", ge=0, description="How long a breach must last before the alert fires."
    )
    keep_firing_for_s: HoldDuration = Field(
        default=None,
        alias="keep_firing_for",
        description=(
            "How long every stream must be ok before the alert is resolved; auto is half as long again as they were "
            "not, 1h at most, so that what swings around a bound is one alert."
        ),
    )
    retire_after_s: Duration = Field(
        default=300.0,
        alias="retire_after",
        gt=0,
        description="A version without traffic for so long, while another one has some, is retired: its alerts end.",
    )
    retry_for_s: Duration = Field(
        default=86_400.0,
        alias="retry_for",
        gt=0,
        description="How long an alert is sent again and again while its recipient is away; then it is a dead letter.",
    )
    maintenance: tuple[MaintenanceSection, ...] = Field(
        default=(),
        description='Times without notifications, any of `{days: [sun], start: "02:00", end: "04:00", model: "*"}`.',
    )
    dashboard_url: Annotated[OptionalUrl, AfterValidator(_check_placeholders)] = Field(
        default=None,
        description="The dashboard of a model: https://grafana.example/d/model?var-model={model}. Also {version}, "
        "{environment} and {rule}; null is the processor's own page.",
    )
    runbook_url: OptionalUrl = Field(
        default=None,
        description="Where your copy of docs/runbooks is; an alert names the page of its rule there, such as "
        "data_drift.md. null is the web port, which has them.",
    )
    trace_url: Annotated[OptionalUrl, AfterValidator(_check_trace_address)] = Field(
        default=None, description="Where a trace is looked at: https://jaeger.example/trace/{trace_id}."
    )
    links: dict[str, Annotated[Url, AfterValidator(_check_placeholders)]] = Field(
        default_factory=dict, description="Other addresses in every alert, by name; with places as in `dashboard_url`."
    )
