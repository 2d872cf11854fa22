from __future__ import annotations

from dataclasses import replace

from otel_mlmon.processor.notify.delivery import DeliverySettings
from otel_mlmon.processor.notify.dispatcher import Dispatcher, OutboxEntry
from otel_mlmon.processor.notify.notifier import TransientError
from tests.support.alerts import FIRING, RESOLVED
from tests.support.notifiers import DeadLetterList, ScriptedNotifier

HOUR_NS = 3600 * 10**9


def test_every_notifier_settles_for_itself_and_one_that_is_gone_gives_up() -> None:
    first, second, letters = ScriptedNotifier(), ScriptedNotifier([TransientError("x")] * 1000), DeadLetterList()
    dispatcher = Dispatcher(
        {"first": first, "second": second},
        dead_letters=letters,
        settings=DeliverySettings(give_up_after_s=3000.0),
        clock_ns=lambda: 10 * HOUR_NS,
    )
    assert dispatcher.names == ("first", "second")
    dispatcher.start([])
    dispatcher.submit(OutboxEntry(alert=FIRING, notifiers=("first", "gone"), queued_ns=10 * HOUR_NS))
    dispatcher.submit(OutboxEntry(alert=RESOLVED, notifiers=("second",), queued_ns=9 * HOUR_NS))
    other = replace(FIRING, model="other")
    dispatcher.submit(OutboxEntry(alert=other, notifiers=("second",), queued_ns=10 * HOUR_NS))
    assert first.wait_for(1) == [FIRING]
    assert {letter[1:3] for letter in letters.wait_for(2)} == {("gone", "removed"), ("second", "given_up")}
    dispatcher.shutdown()
    assert not dispatcher.is_complete
    assert sorted(dispatcher.pop_settled()) == sorted(
        [("first", FIRING.key), ("gone", FIRING.key), ("second", RESOLVED.key)]
    )
    assert dispatcher.pop_settled() == []
