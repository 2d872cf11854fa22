"""A request that comes again byte for byte gets the answer of the first, and its points are counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import OverloadedError, UnavailableError
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.data_point import Rejections, TelemetryItem
from otel_mlmon.processor.receive.load import WorkTimeMeter
from otel_mlmon.processor.receive.outcomes import ExportResult, PointOutcomeCounts
from otel_mlmon.processor.receive.recent_requests import (
    MAX_REQUESTS,
    MAX_SHARED_S,
    REMEMBERED_S,
    RecentRequests,
    hash_body,
)
from tests.support.observations import list_points
from tests.support.otlp_requests import new_predictions, request

COUNTS = PointOutcomeCounts(accepted=1, ignored=0, loop_dropped=0, unused=0, rejected={}, uncounted={})


class Bench:
    """An admission whose deliveries are ended by hand, and what it counted as repeated."""

    def __init__(self, **options: object) -> None:
        self.now_s = 0.0
        self.deliveries: list[Future[Rejections]] = []
        self.delivered_points = 0
        self.repeated: Counter[str] = Counter()
        self.admission = RequestAdmission(
            self._deliver,
            count_repeated=lambda outcomes: self.repeated.update(outcomes),
            meter=WorkTimeMeter(clock=lambda: self.now_s),
            clock=lambda: self.now_s,
            **options,  # type: ignore[arg-type]
        )

    def _deliver(self, items: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        self.deliveries.append(Future())
        self.delivered_points += len(list_points(items))
        return self.deliveries[-1]

    def send(self, body: bytes) -> Future[ExportResult]:
        return self.admission.consume_request("metrics", body)

    @property
    def account(self) -> Mapping[str, int]:
        counts = self.admission.read_counts
        return {"accepted": counts.accepted, "refused": counts.refused, "rejected": counts.rejected_total}


def test_a_request_that_comes_again_after_it_was_stored_is_answered_and_not_worked_off() -> None:
    bench, body = Bench(), new_predictions(points=3)
    first = bench.send(body)
    bench.deliveries[0].set_result({})
    bench.now_s = REMEMBERED_S
    assert (first.result(0), bench.send(body).result(0)) == (ExportResult(), ExportResult())
    assert (bench.delivered_points, dict(bench.repeated)) == (3, {"duplicate": 3})
    assert (bench.account, bench.admission.pending_bytes) == ({"accepted": 6, "refused": 0, "rejected": 0}, 0)
    bench.now_s += 1.0
    assert not bench.send(body).done()
    assert bench.delivered_points == 6


def test_a_request_that_comes_again_while_it_is_stored_shares_the_answer() -> None:
    bench, body = Bench(), new_predictions(points=3)
    answers = [bench.send(body) for _ in range(3)]
    assert ([answer.done() for answer in answers], bench.delivered_points) == ([False] * 3, 3)
    assert bench.admission.pending_bytes == len(body)
    bench.deliveries[0].set_result({"too_late": 1})
    assert [answer.result(0) for answer in answers] == [ExportResult(rejected=1, message="too_late: 1")] * 3
    assert bench.account == {"accepted": 6, "refused": 0, "rejected": 3}
    assert dict(bench.repeated) == {"duplicate": 4, "too_late": 2}
    # Not remembered: it may be sent again on purpose, when there is room for all of it.
    assert not bench.send(body).done()
    assert bench.delivered_points == 6


def test_what_the_data_model_rejects_is_answered_alike_when_it_comes_again() -> None:
    bench = Bench()
    bad = request("ml.predictions", "gauge", lambda point: setattr(point, "as_int", 1), points=2)
    body = new_predictions(points=3) + bad.SerializeToString()
    first = bench.send(body)
    bench.deliveries[0].set_result({})
    assert first.result(0) == bench.send(body).result(0) == ExportResult(rejected=2, message="wrong_type: 2")
    assert bench.account == {"accepted": 6, "refused": 0, "rejected": 4}
    assert dict(bench.repeated) == {"duplicate": 3}


def test_one_that_is_not_stored_fails_for_all_and_is_worked_off_when_it_comes_again() -> None:
    bench, body = Bench(), new_predictions(points=3)
    answers = [bench.send(body) for _ in range(2)]
    bench.deliveries[0].set_exception(OverloadedError("full", retry_after_s=3.0))
    errors = [answer.exception(0) for answer in answers]
    assert [type(error) for error in errors] == [OverloadedError] * 2
    assert bench.account == {"accepted": 0, "refused": 6, "rejected": 0}
    third = bench.send(body)
    bench.deliveries[1].set_result({})
    assert (third.result(0), bench.delivered_points, dict(bench.repeated)) == (ExportResult(), 6, {})


@pytest.mark.guarded
def test_one_that_shares_with_a_dead_letter_may_be_sent_again() -> None:
    bench, body = Bench(), new_predictions(points=3)
    for _ in range(2):
        answers = [bench.send(body) for _ in range(2)]
        bench.deliveries[-1].set_exception(ZeroDivisionError())
    assert answers[0].result(0).rejected == 3
    assert isinstance(answers[1].exception(0), UnavailableError)
    assert bench.account == {"accepted": 0, "refused": 9, "rejected": 3}


def test_one_that_never_ends_is_not_waited_for() -> None:
    bench, body = Bench(max_queue_s=1e9), new_predictions(points=3)
    bench.send(body)
    bench.now_s = MAX_SHARED_S
    bench.send(body)
    assert bench.delivered_points == 3
    bench.now_s += 1.0
    bench.admission.consume_request("metrics", body, place=bench.admission.admit_request(0))
    assert bench.delivered_points == 6
    bench.deliveries[1].set_result({})
    assert bench.send(body).result(0) == ExportResult()


def test_one_without_room_for_its_points_is_refused_before_it_is_parsed_unless_it_is_stored() -> None:
    has_room = True
    bench, body = Bench(has_room=lambda: has_room, retry_after_s=2.0), new_predictions(points=3)
    bench.send(body)
    bench.deliveries[0].set_result({})
    has_room = False
    message = r"^Too many points wait until their pane closes\. Send the request again later\.$"
    with pytest.raises(OverloadedError, match=message) as refusal:
        bench.send(b"\xff\xff")
    assert refusal.value.retry_after_s == 2.0
    assert bench.send(body).result(0) == ExportResult()
    assert bench.admission.consume_request("traces", b"").result(0) == ExportResult()
    counts = bench.admission.read_counts
    assert (dict(counts.unread_requests), dict(counts.unread_bytes)) == ({"pending_points": 1}, {"pending_points": 2})
    assert (counts.malformed, bench.admission.pending_bytes) == (0, 0)


def test_the_number_of_remembered_requests_is_bounded() -> None:
    requests = RecentRequests(clock=lambda: 0.0)
    digests = [hash_body(number.to_bytes(4, "big")) for number in range(MAX_REQUESTS + 2)]
    for digest in digests:
        result: Future[ExportResult] = Future()
        requests.begin_request(digest, 1, result)
        requests.store_result(digest, result, COUNTS, ExportResult())
    assert [requests.find_request(digest) is not None for digest in (*digests[:3], digests[-1])] == [
        False,
        False,
        True,
        True,
    ]


def test_old_requests_take_no_memory() -> None:
    now_s = 0.0
    requests = RecentRequests(clock=lambda: now_s)
    for number in range(100):
        now_s = number * REMEMBERED_S / 10
        requests.begin_request(hash_body(bytes([number])), 1, Future())
    assert len(requests._requests) == 11


Step = tuple[str, int]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 2)),
            st.tuples(st.sampled_from(["store", "store in part", "refuse"]), st.integers(0, 3)),
            st.tuples(st.just("wait"), st.sampled_from([1, 61, 601])),
        ),
        max_size=30,
    )
)
def test_every_point_that_is_sent_has_one_outcome_whatever_comes_again(steps: list[Step]) -> None:
    bench = Bench(max_queue_s=1e9)
    bodies = [new_predictions(points=points) for points in (1, 3, 5)]
    answers: list[tuple[int, Future[ExportResult]]] = []
    outcomes: dict[str, Rejections | Exception] = {
        "store": {},
        "store in part": {"too_late": 1},
        "refuse": OverloadedError("full", retry_after_s=1.0),
    }

    def end(delivery: Future[Rejections], outcome: Rejections | Exception) -> None:
        if isinstance(outcome, Exception):
            delivery.set_exception(outcome)
        else:
            delivery.set_result(outcome)

    for name, number in steps:
        if name == "wait":
            bench.now_s += number
        elif name == "send":
            with suppress(OverloadedError):  # after long waits it is not admitted, and counted as unread
                answers.append(((1, 3, 5)[number], bench.send(bodies[number])))
        else:
            waiting = [delivery for delivery in bench.deliveries if not delivery.done()]
            if number < len(waiting):
                end(waiting[number], outcomes[name])
    for delivery in bench.deliveries:
        if not delivery.done():
            end(delivery, {})
    rejected = sum(answer.result(0).rejected for _, answer in answers if answer.exception(0) is None)
    refused = sum(points for points, answer in answers if answer.exception(0) is not None)
    sent = sum(points for points, _ in answers)
    assert bench.account == {"accepted": sent - refused - rejected, "refused": refused, "rejected": rejected}
    assert bench.admission.pending_bytes == 0
