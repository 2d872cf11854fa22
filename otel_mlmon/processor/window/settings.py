"""Settings of the window step: lengths of time for all models, and those of one model."""

from __future__ import annotations

from dataclasses import dataclass

from otel_mlmon.processor.window.window import ReferenceOrigin
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.stream_sketch import StreamSketch


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """Lengths of time, the same for all models."""

    pane_s: float = 10.0
    """Length of a pane, the unit of evidence; above 0."""
    lateness_s: float = 15.0
    """Allowed lateness: how long after its end a pane accepts points, in event time; 0 or above."""
    rolling_s: float = 3600.0
    """Length of the window that is reported; `pane_s` or above."""
    short_panes: int = 6
    """Panes that latency percentiles, throughput and error ratio are read from; 1 or above."""
    stale_after_s: float = 86_400.0
    """A series without points for this long is removed."""
    stored_s: float = 86_400.0
    """How long closed panes stay stored; never less than the rolling window."""
    retention_s: float = 14 * 86_400.0
    """A model without points for this long is removed, with what it learned."""
    history_hours: int = 0
    """The longest that hours are stored for any model's moving reference."""

    @property
    def pane_ns(self) -> int:
        """Length of a pane, nanoseconds."""
        return _ns(self.pane_s)

    @property
    def lateness_ns(self) -> int:
        """Allowed lateness, nanoseconds."""
        return _ns(self.lateness_s)

    @property
    def rolling_ns(self) -> int:
        """Length of the rolling window, nanoseconds."""
        return _ns(self.rolling_s)

    @property
    def stale_after_ns(self) -> int:
        """Age at which a series is stale, nanoseconds."""
        return _ns(self.stale_after_s)

    @property
    def stored_ns(self) -> int:
        """How long closed panes stay stored, nanoseconds."""
        return max(_ns(self.stored_s), self.rolling_ns)

    @property
    def retention_ns(self) -> int:
        """Age at which a silent model is removed, nanoseconds."""
        return _ns(self.retention_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingReferenceSettings:
    """Settings of a reference that moves with time."""

    rolling_hours: int
    """How much of the past it holds; 1 or above."""
    lag_hours: int
    """How much older than the panes that are judged by it it is at least; 1 or above."""
    hour_of_week: bool = False
    """Whether each hour of the week has a reference of its own."""

    @property
    def retained_hours(self) -> int:
        """How long hours are retained."""
        return self.rolling_hours + 2 * self.lag_hours


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWindowSettings:
    """Settings of one model."""

    learn: int = 5000
    """Values after which a stream's learned reference is frozen, if they are homogeneous; 1 or above."""
    learn_panes: int = 1
    """Panes with values that learning takes at least; 1 or above."""
    profile: Profile | None = None
    """The operator's reference; a stream that it has does not learn."""
    embedded_profile: Profile | None = None
    """The reference that the model carries; a stream that it has, and the operator's has not, does not learn."""
    moving: MovingReferenceSettings | None = None
    """Whether the reference moves with time once it is learned; None for one that stays."""
    latency_threshold_s: float = 0.2
    latency_max_ratio: float = 0.01
    """Share of calls that may be over the threshold, within (0, 1)."""
    error_max_ratio: float = 0.01
    """Share of calls that may fail, within (0, 1)."""
    max_labels: int = 50
    """Classes that get a bin of their own."""
    max_features: int = 100
    """Input features that are watched."""

    def find_profile(self, stream: str) -> tuple[StreamSketch, ReferenceOrigin] | None:
        """Returns the counts of a stream in the operator's reference, or else in the model's own; None without any."""
        profiles: tuple[tuple[Profile | None, ReferenceOrigin], ...] = (
            (self.profile, "file"),
            (self.embedded_profile, "model"),
        )
        for profile, origin in profiles:
            sketch = profile.streams.get(stream) if profile is not None else None
            if sketch is not None and sketch.total:
                return sketch, origin
        return None

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the model on labelled data, if either reference has one."""
        profiles = (self.profile, self.embedded_profile)
        calibrations = (profile.calibration for profile in profiles if profile is not None)
        return next((calibration for calibration in calibrations if calibration is not None), None)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
