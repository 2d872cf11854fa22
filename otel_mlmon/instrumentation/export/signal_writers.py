"""Where a process's signals go."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.export import process_metrics as resource
from otel_mlmon.instrumentation.export.bulk_self_test import Trouble
from otel_mlmon.instrumentation.export.events import Events
from otel_mlmon.instrumentation.export.exceptions import Exceptions
from otel_mlmon.instrumentation.export.exemplars import Exemplars
from otel_mlmon.instrumentation.export.metrics import Metrics
from otel_mlmon.instrumentation.export.model_events import ModelEvents
from otel_mlmon.instrumentation.export.providers import Providers
from otel_mlmon.instrumentation.export.sampling import Limiter
from otel_mlmon.instrumentation.export.spans import Spans
from otel_mlmon.instrumentation.settings import InstrumentationSettings
from otel_mlmon.types import ModelKey


@dataclass(slots=True, kw_only=True, eq=False)
class SignalWriters:
    """One for each signal that has a provider."""

    providers: Providers
    models: ModelEvents
    metrics: Metrics | None = None
    spans: Spans | None = None
    events: Events | None = None
    exceptions: Exceptions | None = None
    process: Any = None
    """What measures the process's CPU and memory, to be uninstrumented; None if it is not ours to measure."""

    def trouble(self) -> Trouble:
        """Why metrics are not filled at once, and why they name no traces; each empty if they are and do."""
        if self.metrics is None:
            off = _without("meter", "OTEL_METRICS_EXPORTER leaves metrics")
            return Trouble(off, off)
        if self.spans is None and not self.metrics.trouble.exemplars:
            return self.metrics.trouble._replace(exemplars=_without("tracer", "OTEL_TRACES_EXPORTER leaves spans"))
        return self.metrics.trouble

    def ways(self) -> dict[str, str]:
        """How the values of features get out, by metric reader."""
        return self.metrics.ways() if self.metrics is not None else {}


def _without(kind: str, leaves: str) -> str:
    return f"there is no {kind} provider: {leaves} to one of your own, or no exporter can be made (failures: exporters)"


def trouble_of(outlets: SignalWriters | None, *, is_closed: bool) -> Trouble:
    """`Outlets.trouble`, also where there are no outlets: before the first record, and after the end."""
    if outlets is not None:
        return outlets.trouble()
    nothing = "it was shut down" if is_closed else "nothing was recorded yet"
    return Trouble(nothing, nothing)


def make_signal_writers(
    found: Providers,
    settings: InstrumentationSettings,
    *,
    drain: Callable[[], object],
    sessions: Callable[[], Iterable[ModelKey]],
    rng: random.Random,
) -> SignalWriters:
    """The outlets of `found`.

    Args:
        found: One provider a signal.
        settings: How much a second.
        drain: Brings everything recorded so far into the metrics; called before each collection.
        sessions: The model of every session alive.
        rng: Decides which calls get spans and events.
    """
    outlets = SignalWriters(providers=found, models=ModelEvents(found.logger))
    if found.meter is not None:
        outlets.metrics = Metrics(found.meter, drain=drain, sessions=sessions)
    if found.tracer is not None:
        exemplars = Exemplars(outlets.metrics.offer if outlets.metrics else lambda *_: None)
        limiter = Limiter(settings.spans_per_second)
        outlets.spans = Spans(found.tracer, ratio=settings.span_ratio, limiter=limiter, rng=rng, tell=exemplars.tell)
    if found.logger is not None:
        outlets.events = Events(found.logger, limiter=Limiter(settings.events_per_second), rng=rng)
        outlets.exceptions = Exceptions(found.logger, limiter=Limiter(settings.events_per_second))
    if found.owns_meter:
        with guard("resource"):
            outlets.process = resource.start(found.meter)
    return outlets
