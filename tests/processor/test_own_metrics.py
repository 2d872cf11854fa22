"""Every series of the processor's own counters is there from the start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor import own_metrics
from otel_mlmon.processor.receive import outcomes
from tests.processor.test_service import create, get

RECEIVE: Final = Path(outcomes.__file__).parent
DELIVERY: Final = RECEIVE.parent / "notify" / "delivery.py"


def test_every_reason_that_the_receivers_reject_points_for_is_known_beforehand() -> None:
    sources = "\n".join(path.read_text() for path in RECEIVE.glob("*.py"))
    raised = set(re.findall(r"PointError\(\"(\w+)\"\)", sources))
    returned = set(re.findall(r"(?:return|: ) \"((?:no|not|wrong|too)_\w+)\"", sources))
    assert len(raised) >= 10
    assert raised | returned <= set(outcomes.FAULTS) | {"too_large"}


def test_every_outcome_of_a_delivery_is_known_beforehand() -> None:
    source = DELIVERY.read_text()
    attempts = set(re.findall(r"\"(\w+)\"", source.partition("AttemptOutcome = Literal")[2].partition("]")[0]))
    reasons = set(re.findall(r"return \"(\w+)\"|_give_up_entry\(\w+, \"(\w+)\"", source))
    dead = {f"dead_letter.{name}" for pair in reasons for name in pair if name}
    assert attempts | dead <= set(own_metrics.DELIVERY_OUTCOMES)
    assert dead


def test_a_counter_without_an_event_is_zero_and_not_absent(tmp_path: Path) -> None:
    service = create(tmp_path, alerts={"notify": [{"log": {}}]})
    addresses = service.start()
    page = get(addresses, "/metrics").text
    service.shutdown(30.0)
    lines = page.splitlines()
    for metric, label, values in (
        ("otel_mlmon_processor_requests_refused_total", "reason", outcomes.REFUSAL_REASONS),
        ("otel_mlmon_processor_requests_refused_bytes_total", "reason", outcomes.REFUSAL_REASONS),
        ("otel_mlmon_processor_rejected_points_total", "reason", own_metrics.REJECTION_REASONS),
        ("otel_mlmon_processor_points_total", "outcome", ("accepted", "late", "too_many_streams")),
        ("otel_mlmon_processor_received_unused_total", "signal", ("logs", "traces")),
    ):
        for value in values:
            assert f'{metric}{{{label}="{value}"}} 0.0' in lines
    given_up = 'otel_mlmon_processor_notifications_total{notifier="log",outcome="dead_letter.given_up"} 0.0'
    assert given_up in lines
    assert {metric.name for metric in semconv.PROCESSOR_SELF_METRICS}
