"""Processes Sentry's events before they are sent, and weighs transactions by their sampling probability."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from otel_mlmon import semconv
from otel_mlmon.guard import guard

ProcessEvent: TypeAlias = Callable[[Any, Any], None]


class _EventProcessing:
    """Holds the method that processes Sentry's events, since a processor cannot be unregistered there."""

    process: weakref.WeakMethod[ProcessEvent] | None = None
    is_registered = False


def start_processing_events(process: ProcessEvent) -> None:
    """Makes Sentry call a method with each event before it is sent, as long as the method's object lives."""
    from sentry_sdk.scope import add_global_event_processor

    _EventProcessing.process = weakref.WeakMethod(process)
    if not _EventProcessing.is_registered:
        _EventProcessing.is_registered = True
        add_global_event_processor(_process_event)


def stop_processing_events(process: ProcessEvent) -> None:
    """Makes Sentry no longer call a method with its events."""
    if _EventProcessing.process is not None and _EventProcessing.process() == process:
        _EventProcessing.process = None


def weigh_transaction(event: Any) -> None:
    """Multiplies the sample rate in a Sentry transaction by the probability with which its call was chosen.

    Source: develop.sentry.dev, SDK, Dynamic Sampling Context: Sentry weights by the `sample_rate` of the envelope's
    trace header, which is the event's dynamic sampling context.
    """
    context = (event.get("contexts") or {}).get("trace") or {}
    probability = (context.get("data") or {}).get(semconv.SAMPLING_PROBABILITY)
    sampling = context.get("dynamic_sampling_context")
    if probability is None or not sampling or "sample_rate" not in sampling:
        return
    rate = float(sampling["sample_rate"]) * probability
    context["dynamic_sampling_context"] = {**sampling, "sample_rate": str(rate)}


def _process_event(event: Any, hint: Any) -> Any:
    process = _EventProcessing.process() if _EventProcessing.process is not None else None
    if process is not None:
        with guard("sentry"):
            process(event, hint)
    return event
