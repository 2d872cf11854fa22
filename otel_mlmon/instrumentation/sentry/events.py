"""Sentry's events before they are sent: one processor for good, and transactions that say how they were chosen."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from otel_mlmon import semconv
from otel_mlmon.guard import guard

ProcessEvent: TypeAlias = Callable[[Any, Any], None]


class _Processing:
    """Holds the method that processes events: Sentry cannot remove a processor, so one is registered for good."""

    process: weakref.WeakMethod[ProcessEvent] | None = None
    is_registered = False


def process_events_for(process: ProcessEvent) -> None:
    """Calls a bound method, referred to weakly, with each of Sentry's events and their hints from now on."""
    from sentry_sdk.scope import add_global_event_processor

    _Processing.process = weakref.WeakMethod(process)
    if not _Processing.is_registered:
        _Processing.is_registered = True
        add_global_event_processor(_process_event)


def stop_processing_events(process: ProcessEvent) -> None:
    """Stops calling a bound method."""
    if _Processing.process is not None and _Processing.process() == process:
        _Processing.process = None


def weight_transaction(event: Any) -> None:
    """Multiplies the sample rate of an inference's transaction by the probability with which the call was chosen.

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
    process = _Processing.process() if _Processing.process is not None else None
    if process is not None:
        with guard("sentry"):
            process(event, hint)
    return event
