"""Merges the alerts that wait for one recipient after a long outage, so that none is sent that is long over.

Of the changes of one model and rule the last stands for all: an alert that began and grew is one message, and one that
ended is closed. Those that began and ended while the recipient could not be reached become one message that lists them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from otel_mlmon.processor.alert.alert import Alert


@dataclass(slots=True, kw_only=True)
class QueuedAlert:
    """An alert that waits to be sent to its recipient. Times are seconds of the delivery's clock."""

    alert: Alert
    queued_s: float
    expires_s: float
    """When it is given up."""
    due_s: float = -math.inf
    """When the next attempt is made."""
    attempts: int = 0
    is_ambiguous: bool = False
    """Whether an attempt may have arrived although it failed."""
    superseded: tuple[str, ...] = ()
    """The keys of the alerts that this one stands for."""


def merge_queue(queue: Iterable[QueuedAlert]) -> list[QueuedAlert]:
    """Merges the queued alerts of each model and rule into one, and all that began and ended unsent into another."""
    chains: dict[str, list[QueuedAlert]] = {}
    for entry in queue:
        chains.setdefault(entry.alert.fingerprint, []).append(entry)
    merged: list[QueuedAlert] = []
    finished: list[QueuedAlert] = []
    for chain in chains.values():
        # What an attempt may have begun must be ended.
        is_untold = chain[0].alert.is_beginning and not chain[0].is_ambiguous
        is_summary = bool(chain[0].alert.missed)
        entry = _merge_alert_chain(chain)
        (finished if entry.alert.is_resolved and (is_untold or is_summary) else merged).append(entry)
    if finished:
        merged.append(_merge_finished_alerts(finished))
    return sorted(merged, key=lambda entry: entry.alert.sequence)


def _merge_alert_chain(chain: list[QueuedAlert]) -> QueuedAlert:
    first, last = chain[0], chain[-1]
    if first is last:
        return first
    # An incident that the recipient knows of goes on, also where it ended and began again meanwhile.
    begin_ns = first.alert.time_ns if first.alert.is_beginning else first.alert.incident_ns
    missed = tuple(line for entry in chain for line in entry.alert.missed)
    alert = replace(last.alert, previous=first.alert.previous, incident_ns=begin_ns, missed=missed)
    keys = [key for entry in chain for key in (*entry.superseded, entry.alert.key)]
    return replace(first, alert=alert, expires_s=last.expires_s, superseded=tuple(keys[:-1]))


def _merge_finished_alerts(finished: list[QueuedAlert]) -> QueuedAlert:
    finished = sorted(finished, key=lambda entry: entry.alert.sequence)
    lines = tuple(
        line for entry in finished for line in (entry.alert.missed or (_describe_finished_alert(entry.alert),))
    )
    last = finished[-1]
    keys = [key for entry in finished for key in (*entry.superseded, entry.alert.key)]
    due_s = min(entry.due_s for entry in finished)
    return replace(last, alert=replace(last.alert, missed=lines), due_s=due_s, superseded=tuple(keys[:-1]))


def _describe_finished_alert(alert: Alert) -> str:
    begin, end = (
        f"{datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc):%Y-%m-%d %H:%M:%S}"
        for time_ns in (alert.incident_ns or alert.time_ns, alert.time_ns)
    )
    model = " ".join(filter(None, (alert.model, alert.version, alert.environment)))
    return f"{alert.severity} · {model} · {alert.title}, {begin} to {end} UTC"
