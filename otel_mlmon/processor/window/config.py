"""Defines the sections `windows` and `limits` of the configuration file, and `reference` of a model."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from otel_mlmon.processor.config.section import ConfigSection, Count, Duration


class WindowsSection(ConfigSection):
    """The configuration of how event time is divided into panes and rolling windows."""

    pane_s: Duration = Field(default=10.0, alias="pane", gt=0, description="Length of a pane, the unit of evidence.")
    lateness_s: Duration = Field(
        default=15.0, alias="lateness", ge=0, description="How long a pane waits for late data."
    )
    idle_after_s: Duration = Field(
        default=30.0,
        alias="idle_after",
        gt=0,
        description="A sender that is silent for this long, or this far behind the others, holds up no pane.",
    )
    amend_for_s: Duration | None = Field(
        default=None,
        alias="amend_for",
        gt=0,
        description="How long a closed pane still takes late data into its counts; null: as long as it is stored.",
    )
    rolling_s: Duration = Field(
        default=3600.0, alias="rolling", gt=0, description="Length of the rolling window that is reported and drawn."
    )

    @model_validator(mode="after")
    def _check_lengths(self) -> WindowsSection:
        if self.rolling_s < self.pane_s:
            raise ValueError("rolling must be at least pane")
        return self


class LimitsSection(ConfigSection):
    """Limits that keep memory bounded; the log warns at 80 % and 100 % of each."""

    max_models: Count = Field(default=1_000, ge=1, description="Model versions at once.")
    max_streams: Count = Field(default=10_000, ge=1, description="Streams monitored at once, over all models.")
    max_series: Count = Field(
        default=200_000, ge=1, description="Series at once, over all processes that send: 1 to 2 kB of memory each."
    )
    max_bounds: Count = Field(
        default=16,
        ge=1,
        description=(
            "Different bounds of the explicit histograms of one stream: each is a histogram of its own until a "
            "reference is learned. Bounds that change with every point are a mistake, and are rejected beyond it."
        ),
    )
    max_pending_points: Count = Field(
        default=1_000_000,
        ge=1,
        description=(
            "Data points that wait until their pane closes, some 500 bytes of memory each: those of the last `pane` + "
            "`lateness`, or of `idle_after` more where senders lag behind. When it is reached panes close without "
            "waiting for late data, and requests are refused until there is room: senders try again."
        ),
    )
    max_gauge_streams: Count = Field(
        default=2_000,
        ge=0,
        description=(
            "Streams with gauges, at `/metrics` and over OTLP: the first that come, each for as long as it is there. "
            "The page and the API have all."
        ),
    )
    stale_after_s: Duration = Field(
        default=86400.0,
        alias="stale_after",
        gt=0,
        description=(
            "A stream without data for this long is forgotten, and a version that another one replaced. The series of "
            "a process that ended are forgotten after this or 30m, whichever is shorter."
        ),
    )


class ReferenceSection(ConfigSection):
    """The configuration of the reference that drift of a model's streams is measured against."""

    learn: Count = Field(
        default=5000, ge=1, description="Predictions of a model version from which its reference is learned."
    )
    learn_for_s: Duration = Field(
        default=7 * 86400.0,
        alias="learn_for",
        gt=0,
        description="The longest time that it is learned, from 200 predictions on.",
    )
    file: Path | None = Field(default=None, description="A reference profile, used instead of learning.")
    rolling_s: Duration | None = Field(
        default=None,
        alias="rolling",
        ge=3600,
        description="After learning, compare with this much of the past, such as 7d; null keeps what was learned.",
    )
    lag_s: Duration = Field(
        default=86400.0,
        alias="lag",
        ge=3600,
        description="A rolling reference is older than what is compared with it by at least this.",
    )
    hour_of_week: bool = Field(
        default=False,
        description="Compare with the same hour of the weeks before, over `rolling` or, without it, 28d.",
    )

    time_zone: str = Field(
        default="",
        description=(
            "The time zone of the model's users, such as Europe/Berlin: days and weekends are those of its clocks, "
            "also when these change. Empty: they are learned, without changes of the clocks."
        ),
    )

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        try:
            return value and ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no time zone that this machine knows, such as Europe/Berlin") from error

    @model_validator(mode="after")
    def _check_combination(self) -> ReferenceSection:
        if self.file is not None and (self.rolling_s is not None or self.hour_of_week):
            raise ValueError("file is a fixed reference; it cannot be rolling too")
        return self
