from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from otel_mlmon.processor.alert.alert import Alert, RuleState
from otel_mlmon.processor.alert.message import format_alert
from otel_mlmon.processor.notify.delivery import MAX_HANGING, AlertDelivery, DeliverySettings
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from tests.support.alerts import FIRING, RESOLVED
from tests.support.notifiers import DeadLetterList, ScriptedNotifier
from tests.support.processes import until

DeadLetter = tuple[Alert, str, str, str]

OTHER = replace(FIRING, model="other", sequence=3)

QUICK = DeliverySettings(backoff_s=0.001, max_backoff_s=0.002, breaker_open_s=0.001)


@contextmanager
def delivery(
    notifier: ScriptedNotifier, letters: DeadLetterList, settings: DeliverySettings = QUICK
) -> Iterator[AlertDelivery]:
    queue = AlertDelivery(notifier, name="n", dead_letters=letters, settings=settings, rng=random.Random(1))
    queue.start()
    try:
        yield queue
    finally:
        queue.shutdown(10)


def test_alerts_are_told_in_order_even_while_the_first_is_retried() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 503")] * 3), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        queue.submit(RESOLVED)
        assert notifier.wait_for(2) == [FIRING, RESOLVED]
    assert queue.outcomes() == {"transient": 3, "delivered": 2}
    assert letters.letters == []


def test_what_will_never_work_is_a_dead_letter_at_once() -> None:
    notifier, letters = ScriptedNotifier([PermanentError("HTTP 404")]), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        queue.submit(RESOLVED)
        assert notifier.wait_for(1) == [RESOLVED]
    assert letters.letters == [(FIRING, "n", "permanent", "HTTP 404")]
    assert queue.outcomes() == {"permanent": 1, "dead_letter.permanent": 1, "delivered": 1}


@pytest.mark.guarded
def test_a_fault_of_ours_in_a_notifier_is_a_dead_letter_too() -> None:
    notifier, letters = ScriptedNotifier([ZeroDivisionError()]), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        ((_, _, reason, _),) = letters.wait_for(1)
    assert (reason, queue.outcomes()["error"]) == ("error", 1)


def test_a_retry_after_beyond_the_end_gives_up_now() -> None:
    notifier, letters = ScriptedNotifier([TransientError("HTTP 429", retry_after_s=1e9)]), DeadLetterList()
    with delivery(notifier, letters) as queue:
        queue.submit(FIRING)
        assert letters.wait_for(1) == [(FIRING, "n", "given_up", "HTTP 429")]


def test_a_full_queue_buries_the_oldest_and_never_waits() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate]), DeadLetterList()
    alerts = [replace(FIRING, model=f"m{number}", sequence=number) for number in range(5)]
    with delivery(notifier, letters, replace(QUICK, capacity=2)) as queue:
        queue.submit(alerts[0])
        notifier.wait_calls(1)
        for alert in alerts[1:]:
            queue.submit(alert)
        assert queue.pending() == 3
        assert [letter[0] for letter in letters.letters] == alerts[1:3]
        gate.set()
        assert notifier.wait_for(3) == [alerts[0], *alerts[3:]]
    assert queue.outcomes()["dead_letter.overflow"] == 2


@pytest.mark.parametrize(
    ("capacity", "told", "outcomes"),
    [
        (2, [OTHER.key, FIRING.key, RESOLVED.key], {"delivered": 3}),
        (1, [OTHER.key, RESOLVED.key], {"superseded": 1, "delivered": 2}),
    ],
)
def test_a_queue_is_merged_beyond_its_capacity_and_not_before(
    capacity: int, told: list[str], outcomes: dict[str, int]
) -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate]), DeadLetterList()
    with delivery(notifier, letters, replace(QUICK, capacity=capacity)) as queue:
        queue.submit(OTHER)
        notifier.wait_calls(1)
        queue.submit(FIRING)
        queue.submit(RESOLVED)
        gate.set()
        assert [alert.key for alert in notifier.wait_for(len(told))] == told
    assert (queue.outcomes(), letters.letters) == (outcomes, [])


def test_a_notifier_that_hangs_is_left_behind_and_few_threads_with_it() -> None:
    gate = threading.Event()
    notifier, letters = ScriptedNotifier([gate] * 100), DeadLetterList()
    settings = replace(QUICK, timeout_s=0.01, give_up_after_s=0.3)
    with delivery(notifier, letters, settings) as queue:
        queue.submit(FIRING)
        ((_, _, reason, _),) = letters.wait_for(1)
        assert (reason, notifier.calls) == ("given_up", MAX_HANGING)
        assert queue.outcomes()["timeout"] > MAX_HANGING
        notifier.script.clear()
        gate.set()
        queue.submit(RESOLVED)
        assert RESOLVED in notifier.wait_for(MAX_HANGING + 1)


def test_shutdown_tries_once_more_and_settles_only_what_arrived() -> None:
    slow = DeliverySettings(backoff_s=60)
    notifier, letters, settled = (
        ScriptedNotifier([TransientError("a"), TransientError("b")]),
        DeadLetterList(),
        list[str](),
    )
    queue = AlertDelivery(notifier, name="n", dead_letters=letters, settings=slow, settle=settled.append)
    queue.start()
    queue.submit(FIRING)
    until(lambda: queue.outcomes() == {"transient": 1})
    queue.submit(RESOLVED)
    queue.submit(OTHER)
    assert not queue.shutdown(10)
    assert (notifier.alerts, settled, letters.letters) == ([OTHER], [OTHER.key], [])
    assert (queue.pending(), queue.outcomes()) == (2, {"transient": 2, "delivered": 1})


def test_shutdown_does_not_wait_for_what_hangs() -> None:
    gate = threading.Event()
    notifier, letters, settled = ScriptedNotifier([gate]), DeadLetterList(), list[str]()
    settings = DeliverySettings(timeout_s=30)
    queue = AlertDelivery(notifier, name="n", dead_letters=letters, settings=settings, settle=settled.append)
    queue.start()
    queue.submit(FIRING)
    queue.submit(RESOLVED)
    notifier.wait_calls(1)
    begin_s = time.monotonic()
    assert not queue.shutdown(0.05)
    assert time.monotonic() - begin_s < 20
    assert (settled, queue.pending()) == ([], 2)
    gate.set()
    assert queue.shutdown(30)
    assert (settled, letters.letters) == ([FIRING.key, RESOLVED.key], [])


def test_what_was_never_started_keeps_what_it_was_given() -> None:
    letters = DeadLetterList()
    queue = AlertDelivery(ScriptedNotifier(), name="n", dead_letters=letters)
    queue.submit(FIRING)
    assert not queue.shutdown(1)
    assert (queue.pending(), letters.letters) == (1, [])


def test_an_alert_that_is_refused_holds_up_its_own_rule_only() -> None:
    class Picky(ScriptedNotifier):
        def notify(self, alert: Alert) -> None:
            if alert.model == FIRING.model and not is_open.is_set():
                raise TransientError("HTTP 500")
            script.notify(alert)

    is_open = threading.Event()
    script, letters = ScriptedNotifier(), DeadLetterList()
    with delivery(Picky(), letters) as queue:
        for alert in (FIRING, RESOLVED, OTHER):
            queue.submit(alert)
        assert script.wait_for(1) == [OTHER]
        is_open.set()
        assert script.wait_for(3) == [OTHER, FIRING, RESOLVED]


class Timeline:
    """A clock that only waiting moves, and every wait that was asked for."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def wait(self, delay_s: float) -> None:
        self.waits_s.append(delay_s)
        self.now_s += delay_s


def waits_of(
    script: Sequence[Exception], *alerts: Alert, seed: int = 7, **settings: float
) -> tuple[list[float], list[tuple[Alert, str, str, str]]]:
    """Delivers alerts on a timeline, and returns every wait and the dead letters."""
    timeline, letters, notifier = Timeline(), DeadLetterList(), ScriptedNotifier(list(script))
    options = DeliverySettings(**settings)  # type: ignore[arg-type]
    queue = AlertDelivery(
        notifier, name="n", dead_letters=letters, settings=options, clock=timeline.clock, rng=random.Random(seed),
        wait=timeline.wait,
    )  # fmt: skip
    for alert in alerts:
        queue.submit(alert)
    queue.start()
    until(lambda: queue.pending() == 0)
    assert queue.shutdown(10)
    return timeline.waits_s, letters.letters


def test_by_default_attempts_back_off_with_jitter_for_a_day_and_are_never_far_apart() -> None:
    waits_s, letters = waits_of([TransientError("HTTP 503")] * 20_000, FIRING)
    rng, backoffs_s = random.Random(7), [1.0, 2.0, 4.0, 8.0, 16.0]
    expected_s = [backoff_s * rng.uniform(0.5, 1.0) for backoff_s in backoffs_s[:4]]
    # The circuit is open after five failures in a row.
    expected_s += [max(15.0, backoff_s * rng.uniform(0.5, 1.0)) for backoff_s in (16.0, 20.0, 20.0)]
    assert [round(wait_s, 6) for wait_s in waits_s[:7]] == [round(wait_s, 6) for wait_s in expected_s]
    assert max(waits_s) <= 20.0
    assert 86_400 - 20 < sum(waits_s) <= 86_400
    assert letters == [(FIRING, "n", "given_up", "HTTP 503")]


def test_the_defaults() -> None:
    assert DeliverySettings() == DeliverySettings(
        timeout_s=10.0, capacity=1000, backoff_s=1.0, max_backoff_s=20.0, give_up_after_s=86_400.0,
        merge_after_s=300.0, breaker_failures=5, breaker_open_s=15.0,
    )  # fmt: skip


@pytest.mark.parametrize(("give_up_after_s", "attempts"), [(2.49, 1), (2.5, 2), (7.49, 2), (7.5, 3)])
def test_it_gives_up_before_an_attempt_that_would_be_too_late(give_up_after_s: float, attempts: int) -> None:
    # The waits are as asked for: 2.5 s, then 5 s, whatever the jitter.
    script = [TransientError("x", retry_after_s=2.5), TransientError("x", retry_after_s=5.0), TransientError("x")]
    waits_s, letters = waits_of(script, FIRING, give_up_after_s=give_up_after_s, backoff_s=0.0, max_backoff_s=0.0)
    assert waits_s == [2.5, 5.0][: attempts - 1]
    assert len(letters) == (attempts < 3)


@pytest.mark.parametrize(("failures", "waits_s"), [(1, []), (2, []), (3, [15.0]), (4, [15.0, 15.0])])
def test_the_circuit_opens_at_its_number_of_failures_in_a_row(failures: int, waits_s: list[float]) -> None:
    script: list[Exception] = [PermanentError("x")] * failures
    waits, letters = waits_of(script, *[FIRING] * failures, RESOLVED, breaker_failures=3)
    assert waits == waits_s
    assert len(letters) == failures


def test_a_success_closes_the_circuit() -> None:
    class Alternating(ScriptedNotifier):
        def notify(self, alert: Alert) -> None:
            if alert.time_ns % 3:
                raise PermanentError("x")

    timeline, letters = Timeline(), DeadLetterList()
    queue = AlertDelivery(
        Alternating(), name="n", dead_letters=letters, settings=DeliverySettings(breaker_failures=3),
        clock=timeline.clock, wait=timeline.wait,
    )  # fmt: skip
    for number in range(9):
        queue.submit(replace(FIRING, time_ns=number))
    queue.start()
    until(lambda: queue.pending() == 0)
    assert queue.shutdown(10)
    assert (timeline.waits_s, queue.outcomes()["delivered"]) == ([], 3)


@pytest.mark.parametrize(("retry_after_s", "wait_s"), [(0.1, 0.5), (3.0, 3.0), (0.0, 0.5)])
def test_the_longer_of_backoff_and_retry_after_is_waited_for(retry_after_s: float, wait_s: float) -> None:
    class HalfJitter(random.Random):
        def uniform(self, a: float, b: float) -> float:
            assert (a, b) == (0.5, 1.0)
            return a

    timeline, letters = Timeline(), DeadLetterList()
    notifier = ScriptedNotifier([TransientError("HTTP 429", retry_after_s=retry_after_s)])
    queue = AlertDelivery(
        notifier, name="n", dead_letters=letters, clock=timeline.clock, rng=HalfJitter(), wait=timeline.wait
    )
    queue.submit(FIRING)
    queue.start()
    notifier.wait_for(1)
    assert queue.shutdown(10)
    assert timeline.waits_s == [wait_s]


def deliver(
    timeline: Timeline, script: Sequence[Exception], *alerts: Alert, seed: int = 1
) -> tuple[ScriptedNotifier, list[str]]:
    """Delivers alerts on a timeline, all of which are queued before the first attempt."""
    notifier, letters, settled = ScriptedNotifier(list(script)), DeadLetterList(), list[str]()
    queue = AlertDelivery(
        notifier, name="n", dead_letters=letters, clock=timeline.clock, wait=timeline.wait, settle=settled.append,
        rng=random.Random(seed),
    )  # fmt: skip
    for alert in alerts:
        queue.submit(alert)
    queue.start()
    until(lambda: queue.pending() == 0)
    assert queue.shutdown(10)
    assert letters.letters == []
    return notifier, settled


def numbered(*alerts: Alert) -> list[Alert]:
    return [replace(alert, sequence=number) for number, alert in enumerate(alerts, 1)]


def test_ten_minutes_away_is_one_message_for_what_came_and_went_and_one_for_what_fires() -> None:
    update = replace(FIRING, model="c", previous=RuleState.FIRING, time_ns=FIRING.time_ns + 1)
    alerts = numbered(
        *(replace(alert, model=model) for model in ("a", "b") for alert in (FIRING, RESOLVED)),
        replace(FIRING, model="c"),
        update,
        replace(RESOLVED, model="told before"),
    )
    # About ten minutes of attempts, one after the other.
    notifier, settled = deliver(Timeline(), [TransientError("ConnectError")] * 40, *alerts)
    assert sorted(settled) == sorted(alert.key for alert in alerts)
    told = {alert.model: alert for alert in notifier.alerts}
    assert set(told) == {"b", "c", "told before"}
    assert len(notifier.alerts) == 3
    assert (told["c"].previous, told["c"].time_ns, told["c"].key) == (RuleState.OK, update.time_ns, alerts[5].key)
    assert told["b"].missed == (
        "critical · a 1 · prediction drift, 2025-11-22 14:00:12 to 2025-11-22 14:01:12 UTC",
        "critical · b 1 · prediction drift, 2025-11-22 14:00:12 to 2025-11-22 14:01:12 UTC",
    )
    assert [told[model].missed for model in ("c", "told before")] == [(), ()]


@pytest.mark.parametrize("seed", range(8))
def test_what_came_and_went_is_one_message_whichever_attempt_comes_first(seed: int) -> None:
    alerts = numbered(*(replace(alert, model=model) for model in ("a", "b") for alert in (FIRING, RESOLVED)))
    notifier, settled = deliver(Timeline(), [TransientError("ConnectError")] * 60, *alerts, seed=seed)
    assert sorted(settled) == sorted(alert.key for alert in alerts)
    (alert,) = notifier.alerts
    assert len(alert.missed) == 2
    for line in alert.missed:
        assert line in format_alert(alert)


def test_a_short_outage_changes_nothing() -> None:
    alerts = numbered(FIRING, RESOLVED)
    notifier, settled = deliver(Timeline(), [TransientError("x")] * 5, *alerts)
    assert (notifier.alerts, settled) == (alerts, [alert.key for alert in alerts])


def test_what_an_attempt_may_have_told_is_ended() -> None:
    alerts = numbered(FIRING, RESOLVED)
    notifier, settled = deliver(Timeline(), [TransientError("ReadTimeout", is_ambiguous=True)] * 40, *alerts)
    assert [(alert.state, alert.missed) for alert in notifier.alerts] == [(RuleState.OK, ())]
    assert settled == [alert.key for alert in alerts]


def test_what_an_attempt_without_an_answer_may_have_told_is_ended() -> None:
    timeline, gate = Timeline(), threading.Event()
    notifier, letters = ScriptedNotifier([gate]), DeadLetterList()
    queue = AlertDelivery(
        notifier, name="n", dead_letters=letters, clock=timeline.clock, wait=timeline.wait,
        settings=DeliverySettings(timeout_s=0.05, merge_after_s=0.5),
    )  # fmt: skip
    for alert in numbered(FIRING, RESOLVED):
        queue.submit(alert)
    queue.start()
    alert = notifier.wait_for(1)[0]
    gate.set()
    assert queue.shutdown(10)
    assert (alert.state, alert.missed, letters.letters) == (RuleState.OK, (), [])


def test_the_age_from_before_a_restart_counts() -> None:
    timeline, letters = Timeline(), DeadLetterList()
    notifier = ScriptedNotifier([TransientError("x")] * 1000)
    queue = AlertDelivery(notifier, name="n", dead_letters=letters, clock=timeline.clock, wait=timeline.wait)
    queue.submit(FIRING, age_s=86_400 - 30)
    queue.start()
    until(lambda: queue.pending() == 0)
    assert queue.shutdown(10)
    assert [letter[2] for letter in letters.letters] == ["given_up"]
    assert sum(timeline.waits_s) <= 30


@dataclass
class Forgetful(ScriptedNotifier):
    """Its recipient forgets what is not repeated every minute."""

    renew_every_s: float = 60.0
    renewals: list[list[str]] = field(default_factory=list)

    def renew(self, alerts: Sequence[Alert]) -> None:
        with self.changed:
            self.renewals.append([alert.model for alert in alerts])
            self.changed.notify_all()
        if len(self.renewals) == 2:
            raise TransientError("one that fails is made up for by the next")


def test_what_is_not_over_is_renewed_and_no_longer_than_that() -> None:
    timeline, notifier = Timeline(), Forgetful()
    stop = threading.Event()

    def wait(delay_s: float) -> None:
        if len(notifier.renewals) < 4:
            timeline.wait(delay_s)
        else:
            stop.wait(0.01)

    queue = AlertDelivery(notifier, name="n", dead_letters=DeadLetterList(), clock=timeline.clock, wait=wait)
    queue.start([replace(FIRING, model="before the restart")])
    until(lambda: len(notifier.renewals) == 4)
    queue.submit(FIRING)
    notifier.wait_for(1)
    queue.submit(replace(RESOLVED, model="before the restart"))
    queue.submit(RESOLVED)
    notifier.wait_for(3)
    assert queue.shutdown(10)
    assert notifier.renewals == [["before the restart"]] * 4
    assert (timeline.waits_s, queue.outcomes()) == (
        [60.0, 60.0, 60.0], {"renewed": 3, "renewal_failed": 1, "delivered": 3}
    )  # fmt: skip


def test_the_first_alert_of_an_idle_recipient_is_renewed_a_minute_later() -> None:
    timeline, notifier, stop = Timeline(), Forgetful(), threading.Event()

    def wait(delay_s: float) -> None:
        if len(notifier.renewals) < 2:
            timeline.wait(delay_s)
        else:
            stop.wait(0.01)

    queue = AlertDelivery(notifier, name="n", dead_letters=DeadLetterList(), clock=timeline.clock, wait=wait)
    queue.start()
    timeline.now_s += 1000.0
    queue.submit(FIRING)
    until(lambda: len(notifier.renewals) == 2)
    queue.submit(RESOLVED)
    notifier.wait_for(2)
    assert queue.shutdown(10)
    assert (notifier.renewals, timeline.waits_s) == ([[FIRING.model]] * 2, [60.0, 60.0])
