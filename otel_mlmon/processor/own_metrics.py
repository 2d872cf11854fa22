"""Collects the metric values that the processor reports about itself at `/metrics`, from the counts of its parts.

Counters have a series from the start, at 0, for every value of their labels that is known: Prometheus sees no increase
in a series that begins at 1, so a rule on the first refusal would not fire.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, get_args

from otel_mlmon import semconv
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.processor.alert.alert import RuleState
from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.notify.delivery import AlertDelivery
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.outcomes import FAULTS, REFUSAL_REASONS
from otel_mlmon.processor.self_telemetry import MetricValue, SelfTelemetry
from otel_mlmon.processor.window.outcome import REJECTED_OUTCOMES, PointOutcome, ReferenceOutcome

REJECTION_REASONS: Final = tuple(sorted({*FAULTS, *REJECTED_OUTCOMES}))
"""Every reason for which a point is rejected: by the receivers, or by the windows."""

DELIVERY_OUTCOMES: Final = (
    "delivered", "transient", "timeout", "permanent", "error", "superseded", "renewed", "renewal_failed",
    "dead_letter.permanent", "dead_letter.error", "dead_letter.given_up", "dead_letter.overflow",
)  # fmt: skip
"""The outcomes of a notification."""


def create_telemetry() -> SelfTelemetry:
    """Creates the processor's own counters of data points, references and alerts, all at 0."""
    telemetry = SelfTelemetry()
    for outcome in get_args(PointOutcome):
        telemetry.add(semconv.WINDOW_POINTS, 0, outcome=outcome)
    for outcome in get_args(ReferenceOutcome):
        telemetry.add(semconv.REFERENCES, 0, outcome=outcome)
    for rule in RULES.list_names():
        for state in RuleState:
            telemetry.add(semconv.ALERTS, 0, rule=rule, state=state.value)
    return telemetry


def list_failure_values() -> Iterator[MetricValue]:
    """Yields the number of internal errors that the guard has caught, by kind."""
    for failure, total in JOURNAL.read_totals(semconv.FAILURES.name).items():
        yield MetricValue(metric=semconv.FAILURES, value=total, attributes=dict(failure))


def list_receiver_values(admission: RequestAdmission) -> Iterator[MetricValue]:
    """Yields the metric values on received requests and data points, by their outcome."""
    counts = admission.read_counts
    yield MetricValue(metric=semconv.REQUESTS_PENDING, value=admission.pending_bytes)
    yield MetricValue(metric=semconv.QUEUE_DURATION, value=admission.queue_s)
    yield MetricValue(metric=semconv.REQUESTS_MALFORMED, value=counts.malformed)
    yield MetricValue(metric=semconv.REQUESTS_DEAD_LETTERS, value=counts.dead_letters)
    points = {
        "accepted": counts.accepted,
        "refused": counts.refused,
        "ignored": counts.ignored,
        "loop_dropped": counts.loop_dropped,
        "rejected": counts.rejected_total,
    }
    for metric, key, values, totals in (
        (semconv.RECEIVED_POINTS, semconv.OUTCOME, (), points),
        (semconv.REJECTED_POINTS, semconv.REASON, REJECTION_REASONS, counts.rejected),
        (semconv.REQUESTS_REFUSED, semconv.REASON, REFUSAL_REASONS, counts.unread_requests),
        (semconv.REQUESTS_REFUSED_BYTES, semconv.REASON, REFUSAL_REASONS, counts.unread_bytes),
        (semconv.RECEIVED_UNUSED, semconv.SIGNAL, ("logs", "traces"), counts.unused),
    ):
        for value, total in (dict.fromkeys(values, 0) | dict(totals)).items():
            yield MetricValue(metric=metric, value=total, attributes={key: value})


def list_delivery_values(deliveries: Iterable[AlertDelivery]) -> Iterator[MetricValue]:
    """Yields the metric values on notifications: how many wait for each notifier, and the outcomes of others."""
    for delivery in deliveries:
        attributes = {semconv.NOTIFIER: delivery.name}
        yield MetricValue(metric=semconv.NOTIFICATIONS_PENDING, value=delivery.pending(), attributes=attributes)
        for outcome, count in (dict.fromkeys(DELIVERY_OUTCOMES, 0) | delivery.outcomes()).items():
            yield MetricValue(
                metric=semconv.NOTIFICATIONS, value=count, attributes={**attributes, semconv.OUTCOME: outcome}
            )
