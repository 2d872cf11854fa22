"""What the instrumentation is doing, for the host to ask; docs/status.md says more of the way metrics take."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the instrumentation is doing."""

    is_active: bool
    runtimes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Runtimes instrumented, such as `onnxruntime`, and the methods patched of each."""
    sessions: int = 0
    buffered: int = 0
    recorded: int = 0
    """Calls measured."""
    suppressed: int = 0
    """Calls the host had asked not to be measured."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Calls not measured, by reason."""
    unsent: int = 0
    """Batches whose spans and events were given up, since an exporter blocked."""
    failures: dict[str, int] = field(default_factory=dict)
    """Faults of ours kept from the host, by stage."""
    is_bulk: bool = False
    """Whether histograms are filled at once, the fast way; False before the first record too."""
    bulk_reason: str = ""
    """Why they are not; empty if they are. One by one, a value costs 7 to 16 µs, behind the host, and features have no
    negative values."""
    metric_readers: dict[str, str] = field(default_factory=dict)
    """How the values of features get out of each reader of the meter provider; empty where that cannot be seen."""
    exemplars_reason: str = ""
    """Why metrics do not name traces of calls with spans; empty if they do."""
    owned_providers: tuple[str, ...] = ()
    findings: dict[str, dict[str, str]] = field(default_factory=dict)
    """What was found out by itself, by model and subject: what each output is, what is not looked at."""
    sentry: str = "off"
    """How inferences get to Sentry: `native`, `otlp`, `off`, or `waiting` for the application to initialise it."""
    reason: str = ""
    """Why it is not active."""
