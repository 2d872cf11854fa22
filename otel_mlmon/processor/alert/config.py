"""The section `alerts` of the configuration file, without its notifiers."""

from __future__ import annotations

from pydantic import Field

from otel_mlmon.processor.config.section import Count, Duration, FalseAlarmRate, Section, Url
from otel_mlmon.processor.config.units import FalseAlarms


class AlertSection(Section):
    """When an alert fires and when it is resolved."""

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
    keep_firing_for_s: Duration = Field(
        default=0.0,
        alias="keep_firing_for",
        ge=0,
        description="How long every stream must be ok before the alert is resolved.",
    )
    links: dict[str, Url] = Field(
        default_factory=dict, description="Added to every alert, by name: a dashboard, a runbook."
    )
