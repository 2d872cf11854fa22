"""What a backtest is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from otel_mlmon.backtest.cutting import Budget, WindowLength
from otel_mlmon.backtest.kinds import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked; None is the default."""

    reference: Path
    data: Path
    window: WindowLength | None = None
    columns: Mapping[str, Kind] = field(default_factory=dict)
    """What the user says a column is."""
    timestamp: str | None = None
    """The column that says when; rows are put in its order."""
    tolerance: float | None = None
    """Total variation that is forgiven, [0, 1); by default the processor's, which differs by rule."""
    budget: Budget | None = None
