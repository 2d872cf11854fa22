"""The state of the instrumentation, for the application to read."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.output_reports import OutputReport
from otel_mlmon.internal_events import JOURNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Describes what the instrumentation is doing at one moment."""

    is_active: bool
    """Whether runtimes are instrumented."""
    inactive_reason: str = ""
    """Why `instrument()` did nothing; empty if it did something."""
    patched_methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Methods patched, by runtime, such as `onnxruntime`; none of `manual`, which is `observe()`."""
    active_sessions: int = 0
    """Instrumented sessions that are alive."""
    waiting_calls: int = 0
    """Calls in the queue."""
    recorded_calls: int = 0
    """Calls that were decoded and counted."""
    suppressed_calls: int = 0
    """Calls left out since the application had suppressed instrumentation."""
    dropped_calls: dict[str, int] = field(default_factory=dict)
    """Calls that were not recorded, by reason."""
    dropped_span_batches: int = 0
    """Batches of calls whose spans and events were dropped, since an exporter blocked."""
    failures: dict[str, int] = field(default_factory=dict)
    """Errors of otel_mlmon that were kept from the application, by stage."""
    bulk_unavailable_reason: str = ""
    """Why histograms are filled value by value, which costs 7 to 16 µs each on the worker thread, and without the
    negative values of features; empty if they are filled in bulk."""
    exemplars_unavailable_reason: str = ""
    """Why metrics have no exemplars of calls with spans; empty if they have."""
    metric_readers: dict[str, str] = field(default_factory=dict)
    """The form in which each reader of the meter provider exports the values of features; empty if unknown."""
    owned_providers: tuple[str, ...] = ()
    """Classes of the providers that `instrument()` made itself."""
    findings: dict[str, dict[str, str]] = field(default_factory=dict)
    """Facts inferred about models, by model and subject: the kind of each output, and which inputs are not profiled."""
    outputs: dict[str, dict[str, OutputReport]] = field(default_factory=dict)
    """The kind of each output, the reason, and how far the model's file could be read, by `<model>/<version>` and
    output: as the file has it once the model is loaded, then as its rows show."""
    sentry_mode: str = "off"
    """How inferences reach Sentry: `native`, `otlp`, `otel`, `off`, or `waiting` until the application initialises
    Sentry."""


def count_failures() -> dict[str, int]:
    """Counts the internal errors of otel_mlmon that were kept from the application, by stage."""
    failures: dict[str, int] = {}
    for attributes, count in JOURNAL.read_totals(semconv.FAILURES.name).items():
        stage = dict(attributes)[semconv.STAGE]
        failures[stage] = failures.get(stage, 0) + count
    return failures
