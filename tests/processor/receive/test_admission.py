from __future__ import annotations

import re
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_mlmon.errors import MalformedError, OverloadedError, StoreError, UnavailableError
from otel_mlmon.processor.receive import admission as admission_module
from otel_mlmon.processor.receive.admission import RequestAdmission
from otel_mlmon.processor.receive.codec import CODECS
from otel_mlmon.processor.receive.data_point import (
    DataPoint,
    ModelLoaded,
    PointGroup,
    ProviderFallback,
    Rejections,
    TelemetryItem,
)
from otel_mlmon.processor.receive.inflate import BodyTooLargeError
from otel_mlmon.processor.receive.load import MAX_PENDING_REQUESTS, REQUEST_BYTES, WorkTimeMeter
from otel_mlmon.processor.receive.outcomes import ExportResult, ReceivedCounts
from otel_mlmon.processor.receive.recent_requests import REMEMBERED_S
from otel_mlmon.types import ModelKey
from tests.support.observations import list_points
from tests.support.otlp_requests import counter, histogram, new_predictions, predictions, request

GOOD = predictions(points=3).SerializeToString()


class Store:
    """What comes next: safe at once, later, or never."""

    def __init__(self, *faults: Exception | None, is_slow: bool = False) -> None:
        self.faults = list(faults)
        self.is_slow = is_slow
        self.items: list[DataPoint | ModelLoaded | ProviderFallback] = []
        self.open: list[Future[Rejections]] = []

    def deliver(self, items: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        done: Future[Rejections] = Future()
        fault = self.faults.pop(0) if self.faults else None
        events = (item for item in items if not isinstance(item, PointGroup))
        self.items += (*list_points(items), *events) if fault is None else ()
        if self.is_slow:
            self.open.append(done)
        elif fault is None:
            done.set_result({})
        else:
            done.set_exception(fault)
        return done


def test_a_request_is_done_when_its_items_are_safe() -> None:
    store = Store(is_slow=True)
    admission = RequestAdmission(store.deliver)
    outcome = admission.consume_request("metrics", GOOD)
    assert (outcome.done(), admission.pending_bytes, admission.read_counts.accepted) == (False, len(GOOD), 0)
    assert not outcome.cancel()
    store.open[0].set_result({})
    assert outcome.result(0) == ExportResult()
    assert (admission.pending_bytes, admission.read_counts.accepted, len(store.items)) == (0, 3, 3)


def test_partial_success_says_how_many_and_why() -> None:
    bad = request("ml.inference.duration", "histogram", histogram([1.0], [1]), points=2)
    worse = request("ml.predictions", "sum", counter(-1))
    body = GOOD + bad.SerializeToString() + worse.SerializeToString()
    admission = RequestAdmission(Store().deliver)
    assert admission.consume_request("metrics", body).result(0) == ExportResult(
        rejected=3, message="bucket_mismatch: 2, bad_value: 1"
    )
    assert (admission.read_counts.accepted, dict(admission.read_counts.rejected)) == (
        3,
        {"bucket_mismatch": 2, "bad_value": 1},
    )


def test_reasons_are_ranked_by_number_then_by_name() -> None:
    body = b"".join(
        message.SerializeToString()
        for message in (
            request("ml.predictions", "gauge", counter(1), points=2),
            request("ml.input.missing", "sum", counter(1), points=3),
            request("ml.predictions", "sum", counter(-1), points=2),
        )
    )
    result = RequestAdmission(Store().deliver).consume_request("metrics", body).result(0)
    assert result == ExportResult(rejected=7, message="no_feature_name: 3, bad_value: 2, wrong_type: 2")


def test_the_defaults_are_those_of_the_protocol() -> None:
    admission = RequestAdmission(Store().deliver)
    assert (admission.max_request_bytes, admission.max_pending_bytes, admission.retry_after_s) == (
        64 * 2**20,
        256 * 2**20,
        1.0,
    )
    nothing = ReceivedCounts(
        accepted=0, rejected={}, refused=0, ignored=0, loop_dropped=0, unused={}, unread_requests={}, unread_bytes={},
        malformed=0, dead_letters=0,
    )  # fmt: skip
    assert (admission.read_counts, admission.pending_bytes) == (nothing, 0)


def test_everything_received_is_counted_by_what_became_of_it() -> None:
    admission = RequestAdmission(Store().deliver)
    parts = (
        predictions(points=2),
        request("ml.predictions", "sum", counter(-1), points=3),
        request("x", "sum", counter(1), points=4),
        request("ml.drift.score", "gauge", counter(1), points=5),
    )
    body = b"".join(part.SerializeToString() for part in parts)
    assert admission.consume_request("metrics", body).result(0) == ExportResult(rejected=3, message="bad_value: 3")
    assert admission.consume_request("metrics", body).result(0).rejected == 3
    admission.consume_request("logs", loaded())
    admission.count_unread("too_large", "It is too large.", 12)
    with pytest.raises(MalformedError, match=r"^The body is not an OTLP traces request in protobuf\.$"):
        admission.consume_request("traces", b"\xff")
    assert admission.read_counts == ReceivedCounts(
        accepted=5, rejected={"bad_value": 6}, refused=0, ignored=8, loop_dropped=10, unused={"logs": 1},
        unread_requests={"too_large": 1}, unread_bytes={"too_large": 12},
        malformed=1, dead_letters=0,
    )  # fmt: skip
    assert admission.read_counts.rejected_total == 6


def test_an_empty_request_succeeds() -> None:
    store = Store()
    assert RequestAdmission(store.deliver).consume_request("metrics", b"").result(0) == ExportResult()
    assert store.items == []


def test_logs_and_traces_are_taken_and_not_used() -> None:
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add()
    traces = ExportTraceServiceRequest()
    spans = traces.resource_spans.add().scope_spans.add().spans
    spans.add()
    spans.add()
    admission = RequestAdmission(Store().deliver)
    assert admission.consume_request("logs", logs.SerializeToString()).result(0) == ExportResult()
    assert admission.consume_request("traces", traces.SerializeToString()).result(0) == ExportResult()
    assert dict(admission.read_counts.unused) == {"logs": 1, "traces": 2}
    assert admission.pending_bytes == 0


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_what_is_not_protobuf_is_malformed(signal: Any) -> None:
    admission = RequestAdmission(Store().deliver)
    with pytest.raises(MalformedError):
        admission.consume_request(signal, b"\xff\xff\xff")
    assert (admission.read_counts.malformed, admission.pending_bytes) == (1, 0)


def test_bytes_in_flight_are_bounded_before_parsing() -> None:
    store = Store(is_slow=True)
    admission = RequestAdmission(store.deliver, max_pending_bytes=len(GOOD) + 1, retry_after_s=7.0)
    admission.consume_request("metrics", new_predictions(points=3))
    message = r"^The processor works on too many bytes at a time\. Send the request again later\.$"
    with pytest.raises(OverloadedError, match=message) as refused:
        admission.consume_request("metrics", new_predictions(points=3))
    assert refused.value.retry_after_s == 7.0
    with pytest.raises(OverloadedError):
        admission.consume_request("metrics", b"\xff\xff")  # not even looked at
    counts = admission.read_counts
    assert (dict(counts.unread_requests), counts.refused, counts.malformed) == ({"memory": 2}, 0, 0)
    store.open[0].set_result({})
    admission.consume_request("metrics", new_predictions(points=3))
    store.open[1].set_result({})
    assert admission.read_counts.accepted == 6


def test_the_bound_on_bytes_in_flight_is_exact() -> None:
    store = Store(is_slow=True)
    admission = RequestAdmission(store.deliver, max_pending_bytes=3 * len(GOOD))
    for number in (1, 2, 3):
        assert not admission.consume_request("metrics", new_predictions(points=3)).done()
        assert admission.pending_bytes == number * len(GOOD)
    with pytest.raises(OverloadedError):
        admission.consume_request("metrics", b"\n\0")
    assert admission.consume_request("metrics", b"").result(0) == ExportResult()
    store.open[0].set_result({})
    store.open[1].set_exception(OverloadedError("full", retry_after_s=1.0))
    assert admission.pending_bytes == len(GOOD)
    store.open[2].set_result({})
    assert (admission.pending_bytes, admission.read_counts.accepted, admission.read_counts.refused) == (0, 6, 3)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def slow_meter(clock: Clock, *, requests_per_s: float) -> WorkTimeMeter:
    """A meter that has seen requests such as `GOOD` take long."""
    meter = WorkTimeMeter(clock=clock)
    for _ in range(200):
        with meter.measure():
            clock.now_s += 1 / requests_per_s
        meter.complete(len(GOOD))
    return meter


def test_no_more_than_two_seconds_of_work_wait() -> None:
    store, clock = Store(is_slow=True), Clock()
    admission = RequestAdmission(store.deliver, meter=slow_meter(clock, requests_per_s=4), clock=clock)
    for _ in range(7):
        admission.consume_request("metrics", new_predictions(points=3))
    assert admission.queue_s == pytest.approx(7 / 4, rel=0.1)
    with pytest.raises(OverloadedError, match=r"^The processor has more than 2 s of work before it\. Send") as error:  # noqa: PT012
        for _ in range(3):
            admission.consume_request("metrics", new_predictions(points=3))
    assert error.value.retry_after_s == 1.0
    taken = len(store.open)
    assert taken in (7, 8)
    with pytest.raises(OverloadedError) as error:  # a large one would make the queue so much longer
        admission.admit_request(100 * (len(GOOD) + REQUEST_BYTES))
    assert 15 < error.value.retry_after_s < 30
    with pytest.raises(OverloadedError) as error:
        admission.admit_request(2**24)
    assert error.value.retry_after_s == 30
    assert dict(admission.read_counts.unread_requests) == {"queue": 3}
    for delivery in store.open:
        delivery.set_result({})
    assert admission.consume_request("metrics", new_predictions(points=3)).running()
    assert admission.read_counts.accepted == 3 * taken


def test_while_the_oldest_has_waited_too_long_nothing_more_is_taken() -> None:
    store, clock = Store(is_slow=True), Clock()
    admission = RequestAdmission(store.deliver, clock=clock)
    admission.consume_request("metrics", new_predictions(points=3))
    clock.now_s = 2.5
    with pytest.raises(OverloadedError):
        admission.consume_request("metrics", new_predictions(points=3))
    store.open[0].set_result({})
    admission.consume_request("metrics", new_predictions(points=3))


def test_a_request_whose_turn_to_be_parsed_did_not_come_in_time_is_refused() -> None:
    now_s = 0.0
    admission = RequestAdmission(Store().deliver, clock=lambda: now_s)
    on_time, late = admission.admit_request(len(GOOD)), admission.admit_request(len(GOOD))
    now_s = 1.9
    assert admission.consume_request("metrics", new_predictions(points=3), place=on_time).result(0) == ExportResult()
    now_s = 2.1
    with pytest.raises(OverloadedError, match=r"could not begin with it within 2 s\. Send the request") as refusal:
        admission.consume_request("metrics", new_predictions(points=3), place=late)
    assert refusal.value.retry_after_s == 1.0
    counts = admission.read_counts
    assert (counts.accepted, dict(counts.unread_requests), admission.pending_bytes) == (3, {"queue": 1}, 0)


def test_a_request_that_is_refused_late_before_it_is_parsed_gives_its_place_back() -> None:
    now_s = 0.0
    admission = RequestAdmission(Store().deliver, clock=lambda: now_s)
    place = admission.admit_request(len(GOOD), sent_bytes=7)
    admission.refuse_late(place)
    assert (admission.pending_bytes, admission.is_crowded) == (len(GOOD), False)
    other = admission.admit_request(1)
    assert (admission.pending_bytes, admission.is_crowded) == (len(GOOD) + 1, True)
    now_s = 2.1
    with pytest.raises(OverloadedError, match="could not begin with it within 2 s"):
        admission.refuse_late(place)
    counts = admission.read_counts
    assert (admission.pending_bytes, admission.is_crowded, dict(counts.unread_bytes)) == (1, False, {"queue": 7})
    admission.release_request(other)
    assert admission.pending_bytes == 0


def test_without_room_for_points_only_requests_with_points_are_refused() -> None:
    store = Store()
    admission = RequestAdmission(store.deliver, has_room=lambda: False)
    with pytest.raises(OverloadedError):
        admission.consume_request("metrics", new_predictions(points=3))
    assert admission.consume_request("logs", loaded()).result(0) == ExportResult()
    assert ([type(item) for item in store.items], admission.pending_bytes) == ([ModelLoaded], 0)


def test_a_request_may_take_eight_times_the_largest_once_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"\x0a\x00" * 400  # as many empty messages
    assert RequestAdmission(Store().deliver, max_request_bytes=1_000).consume_request("metrics", body).done()
    assert admission_module.MIN_PARSED_BYTES == 64 * 2**20
    monkeypatch.setattr(admission_module, "MIN_PARSED_BYTES", 1_500)
    for largest, most in ((1_000, 8_000), (100, 1_500)):
        with pytest.raises(BodyTooLargeError, match=f"more than {most} bytes of memory"):
            RequestAdmission(Store().deliver, max_request_bytes=largest).consume_request("metrics", body)


def test_what_comes_next_has_the_time_that_a_request_has_left_however_long_decoding_takes() -> None:
    now_s, allowed_s = 0.0, []

    def deliver(items: tuple[TelemetryItem, ...], max_wait_s: float) -> Future[Rejections]:
        allowed_s.append(max_wait_s)
        return Store().deliver(items, max_wait_s)

    admission = RequestAdmission(deliver, clock=lambda: now_s)
    admission.consume_request(
        "metrics", new_predictions(points=3), place=admission.admit_request(len(GOOD), waited_s=0.5)
    )
    place = admission.admit_request(len(GOOD), waited_s=0.5)
    now_s = 1.0
    admission.consume_request("metrics", new_predictions(points=3), place=place)
    assert allowed_s == [3.0, 2.0]


def test_a_request_that_will_not_find_room_is_refused_before_it_is_read() -> None:
    store, clock = Store(is_slow=True), Clock()
    admission = RequestAdmission(store.deliver, clock=clock)
    admission.check_room(waited_s=60.0)  # no other is there
    admission.consume_request("metrics", new_predictions(points=3))
    admission.check_room(waited_s=2.5)
    with pytest.raises(OverloadedError):
        admission.check_room(waited_s=3.1)
    clock.now_s = 2.5
    with pytest.raises(OverloadedError):
        admission.check_room(waited_s=0.0)
    assert dict(admission.read_counts.unread_requests) == {"queue": 2}
    assert dict(admission.read_counts.unread_bytes) == {"queue": 0}


def test_answers_that_come_later_than_estimated_leave_less_room_until_they_do_not() -> None:
    store, clock = Store(is_slow=True), Clock()
    admission = RequestAdmission(store.deliver, meter=slow_meter(clock, requests_per_s=100), clock=clock)
    admission.check_room(waited_s=2.9)

    def answer_requests(number: int, seconds: float) -> None:
        for _ in range(number):
            admission.consume_request("metrics", new_predictions(points=3))
            clock.now_s += seconds
            store.open.pop().set_result({})

    answer_requests(50, 1.5)
    admission.consume_request("metrics", new_predictions(points=3))
    admission.check_room(waited_s=1.3)
    with pytest.raises(OverloadedError):
        admission.check_room(waited_s=1.7)
    store.open.pop().set_result({})
    answer_requests(50, 0.0)
    admission.consume_request("metrics", new_predictions(points=3))
    admission.check_room(waited_s=2.9)
    answer_requests(1, 3600.0)  # one long pause
    store.open.pop().set_result({})
    admission.consume_request("metrics", new_predictions(points=3))
    admission.check_room(waited_s=2.0)


def test_however_small_requests_are_their_number_is_bounded() -> None:
    clock = Clock()
    meter = WorkTimeMeter(clock=clock)
    admission = RequestAdmission(Store(is_slow=True).deliver, max_queue_s=1e9, meter=meter, clock=clock)
    for _ in range(MAX_PENDING_REQUESTS):
        admission.consume_request("metrics", new_predictions(points=3))
    with pytest.raises(OverloadedError, match="works on 256 requests already"):
        admission.consume_request("metrics", new_predictions(points=3))


def test_a_place_that_is_given_back_is_free() -> None:
    admission = RequestAdmission(Store().deliver, max_pending_bytes=10)
    place = admission.admit_request(10)
    with pytest.raises(OverloadedError):
        admission.admit_request(1)
    admission.release_request(place)
    admission.release_request(place)
    assert admission.pending_bytes == 0
    admission.admit_request(20)


def test_rejections_and_refusals_are_logged_once_a_minute_each(caplog: pytest.LogCaptureFixture) -> None:
    admission = RequestAdmission(Store().deliver)
    bad = request("ml.predictions", "sum", counter(-1), points=2).SerializeToString()
    with caplog.at_level("WARNING", logger="otel_mlmon.receiver"):
        for _ in range(5):
            admission.consume_request("metrics", bad)
            admission.count_unread("too_large", "It is too large.", 12)
    assert [record.getMessage() for record in caplog.records] == [
        "2 points of a metrics request were rejected: bad_value. Their sender was told; "
        "otel_mlmon.processor.rejected.points counts all, and more of this reason are logged once a minute.",
        "A request was refused: It is too large. "
        "otel_mlmon.processor.requests.refused counts all; logged once a minute.",
    ]
    assert dict(admission.read_counts.unread_bytes) == {"too_large": 60}


def test_malformed_requests_are_logged_once_a_minute_since_their_senders_drop_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = RequestAdmission(Store().deliver)
    with caplog.at_level("WARNING", logger="otel_mlmon.receiver"):
        for body in (b"{", b"[]", b'{"resourceMetrics": 1}'):
            with pytest.raises(MalformedError):
                admission.consume_request("metrics", body, body_format="json")
        admission.count_malformed("The body is not valid gzip.")
    assert admission.read_counts.malformed == 4
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(
        "A request is lost, since it is malformed: The body is not an OTLP metrics request in JSON"
    )
    assert message.endswith(" otel_mlmon.processor.requests.malformed counts all; logged once a minute.")


@pytest.mark.guarded
def test_json_that_fails_twice_is_put_aside_as_json(tmp_path: Path) -> None:
    def broken(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        raise RuntimeError

    text = json_format.MessageToJson(predictions(), use_integers_for_enums=True).encode()
    admission = RequestAdmission(broken, dead_letters=tmp_path)
    for _ in range(2):
        admission.consume_request("metrics", text, body_format="json")
    (letter,) = tmp_path.iterdir()
    assert (letter.suffix, letter.read_bytes()) == (".json", text)


def test_a_request_above_the_bound_is_taken_when_it_is_alone() -> None:
    assert (
        RequestAdmission(Store().deliver, max_pending_bytes=1).consume_request("metrics", GOOD).result(0)
        == ExportResult()
    )


def test_what_comes_next_may_turn_a_request_away() -> None:
    def full(items: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        raise OverloadedError("queue is full", retry_after_s=3.0)

    for admission in (
        RequestAdmission(full),
        RequestAdmission(Store(OverloadedError("full", retry_after_s=3.0)).deliver),
    ):
        outcome = admission.consume_request("metrics", GOOD)
        error = outcome.exception(0)
        assert isinstance(error, OverloadedError)
        assert error.retry_after_s == 3.0
        assert (admission.read_counts.refused, admission.read_counts.accepted, admission.pending_bytes) == (3, 0, 0)


@pytest.mark.guarded
def test_a_fault_of_ours_may_be_sent_again_and_the_second_time_is_put_aside(tmp_path: Path) -> None:
    store = Store(ZeroDivisionError(), ZeroDivisionError(), ZeroDivisionError())
    admission = RequestAdmission(store.deliver, dead_letters=tmp_path / "letters")
    error = admission.consume_request("metrics", GOOD).exception(0)
    assert isinstance(error, UnavailableError)
    assert (str(error), error.retry_after_s) == ("The processor failed to take the request; send it again.", 1.0)
    assert not (tmp_path / "letters").exists()
    second = admission.consume_request("metrics", GOOD).result(0)
    assert second == ExportResult(
        rejected=3, message="The processor failed twice to take the request and rejected it; do not send it again."
    )
    assert admission.pending_bytes == 0
    (letter,) = (tmp_path / "letters").iterdir()
    assert re.fullmatch(r"metrics-[0-9a-f]{32}\.pb", letter.name)
    assert letter.read_bytes() == GOOD
    counts = admission.read_counts
    assert (counts.refused, dict(counts.rejected), counts.dead_letters) == (3, {"dead_letter": 3}, 1)
    assert isinstance(admission.consume_request("metrics", GOOD).exception(0), UnavailableError)  # from the start again


@pytest.mark.guarded
@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_a_request_that_cannot_be_decoded_is_counted_whole(
    signal: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    codec = CODECS[signal]

    def broken(_: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setitem(CODECS, signal, codec._replace(decode=broken))
    traces = ExportTraceServiceRequest()
    traces.resource_spans.add().scope_spans.add().spans.add()
    body, points = {
        "metrics": (GOOD + request("x", "sum", counter(1), points=2).SerializeToString(), 5),
        "logs": (loaded(), 2),
        "traces": (traces.SerializeToString(), 1),
    }[signal]
    store = Store()
    admission = RequestAdmission(store.deliver, dead_letters=tmp_path, retry_after_s=4.0)
    error = admission.consume_request(signal, body).exception(0)
    assert isinstance(error, UnavailableError)
    assert error.retry_after_s == 4.0
    assert admission.consume_request(signal, body).result(0).rejected == points
    counts = admission.read_counts
    assert (counts.refused, dict(counts.rejected), counts.dead_letters) == (points, {"dead_letter": points}, 1)
    assert (counts.accepted, store.items, admission.pending_bytes) == (0, [], 0)
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == [signal]


@pytest.mark.guarded
def test_the_last_failures_are_remembered_and_older_ones_are_not() -> None:
    def body(number: int) -> bytes:
        return bytes(predictions(count=number).SerializeToString())

    def broken(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        raise RuntimeError

    admission = RequestAdmission(broken)
    for number in range(1025):
        assert admission.consume_request("metrics", body(number)).exception(0) is not None
    assert admission.consume_request("metrics", body(1)).result(0).rejected == 1
    assert isinstance(admission.consume_request("metrics", body(0)).exception(0), UnavailableError)


@pytest.mark.guarded
def test_a_fault_that_passes_is_forgotten() -> None:
    now_s = 0.0
    store = Store(ZeroDivisionError(), None, ZeroDivisionError())
    admission = RequestAdmission(store.deliver, clock=lambda: now_s)
    assert isinstance(admission.consume_request("metrics", GOOD).exception(0), UnavailableError)
    assert admission.consume_request("metrics", GOOD).result(0) == ExportResult()
    now_s += REMEMBERED_S + 1
    assert isinstance(admission.consume_request("metrics", GOOD).exception(0), UnavailableError)


@pytest.mark.guarded
def test_a_dead_letter_that_cannot_be_written_is_still_counted(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")

    def broken(items: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        raise RuntimeError

    admission = RequestAdmission(broken, dead_letters=in_the_way)
    assert isinstance(admission.consume_request("metrics", GOOD).exception(0), UnavailableError)
    assert admission.consume_request("metrics", GOOD).result(0).rejected == 3
    assert admission.read_counts.dead_letters == 1


@pytest.mark.guarded
@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["good", "bad", "loop", "other"]),
            st.integers(1, 4),
            st.sampled_from([None, OverloadedError("full", retry_after_s=1.0), ZeroDivisionError()]),
        ),
        max_size=12,
    )
)
def test_every_point_sent_is_accounted_for(sendings: list[tuple[str, int, Exception | None]]) -> None:
    store, repeated = Store(), Counter[str]()
    admission = RequestAdmission(store.deliver, count_repeated=lambda outcomes: repeated.update(outcomes))
    sent = 0
    for kind, points, fault in sendings:
        message = {
            "good": predictions(points=points),
            "bad": request("ml.predictions", "gauge", counter(1), points=points),
            "loop": request("ml.drift.score", "gauge", counter(1), points=points),
            "other": request("x", "sum", counter(1), points=points),
        }[kind]
        store.faults = [fault]
        sent += points
        assert admission.consume_request("metrics", message.SerializeToString()).done()
    counts = admission.read_counts
    account = counts.accepted + counts.rejected_total + counts.refused + counts.ignored + counts.loop_dropped
    stored = len(store.items) + repeated["duplicate"]
    assert (account, counts.accepted, admission.pending_bytes) == (sent, stored, 0)


def test_many_threads_lose_no_count() -> None:
    lock = threading.Lock()
    batch_sizes: list[int] = []

    def deliver(items: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        with lock:
            batch_sizes.append(len(list_points(items)))
        done: Future[Rejections] = Future()
        done.set_result({})
        return done

    admission = RequestAdmission(deliver)
    with ThreadPoolExecutor(max_workers=8) as pool:
        bodies = [new_predictions(points=3) for _ in range(200)]
        outcomes = list(pool.map(lambda body: admission.consume_request("metrics", body).result(30), bodies))
    assert outcomes == [ExportResult()] * 200
    assert (admission.read_counts.accepted, sum(batch_sizes), admission.pending_bytes) == (600, 600, 0)


def loaded(name: str = "fraud") -> bytes:
    """A request with one `ml.model.loaded` and one record of another event."""
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    record = records.add(event_name="ml.model.loaded")
    record.attributes.add(key="ml.model.name").value.string_value = name
    records.add(event_name="ml.prediction")
    return bytes(logs.SerializeToString())


def test_a_model_that_was_loaded_is_delivered_and_acknowledged_like_a_point() -> None:
    store = Store(is_slow=True)
    admission = RequestAdmission(store.deliver)
    outcome = admission.consume_request("logs", loaded())
    assert (outcome.done(), admission.read_counts.accepted) == (False, 0)
    store.open[0].set_result({})
    assert outcome.result(0) == ExportResult()
    assert store.items == [ModelLoaded(model=ModelKey("fraud", ""), reference="")]
    assert (admission.read_counts.accepted, dict(admission.read_counts.unused)) == (1, {"logs": 1})


def test_a_loaded_model_without_a_name_is_rejected_with_the_reason() -> None:
    admission = RequestAdmission(Store().deliver)
    assert admission.consume_request("logs", loaded("")).result(0) == ExportResult(
        rejected=1, message="no_model_name: 1"
    )
    assert dict(admission.read_counts.rejected) == {"no_model_name": 1}


@pytest.mark.guarded
def test_logs_that_fail_twice_are_put_aside_as_logs(tmp_path: Path) -> None:
    def broken(received: tuple[TelemetryItem, ...], _: float) -> Future[Rejections]:
        raise RuntimeError("ours")

    admission = RequestAdmission(broken, dead_letters=tmp_path)
    with pytest.raises(UnavailableError):
        admission.consume_request("logs", loaded()).result(0)
    assert admission.consume_request("logs", loaded()).result(0).rejected == 1
    (letter,) = tmp_path.iterdir()
    assert (letter.name.startswith("logs-"), letter.read_bytes()) == (True, loaded())


def test_what_the_next_step_did_not_count_is_in_the_answer_and_not_accepted() -> None:
    def deliver(_: tuple[TelemetryItem, ...], __: float) -> Future[Rejections]:
        answered: Future[Rejections] = Future()
        answered.set_result({"late": 2})
        return answered

    bad = request("ml.predictions", "sum", counter(-1))
    admission = RequestAdmission(deliver)
    result = admission.consume_request("metrics", GOOD + bad.SerializeToString()).result(0)
    assert result == ExportResult(rejected=3, message="late: 2, bad_value: 1")
    counts = admission.read_counts
    assert (counts.accepted, dict(counts.rejected)) == (1, {"late": 2, "bad_value": 1})


def test_a_state_that_cannot_be_stored_never_makes_a_dead_letter(tmp_path: Path) -> None:
    fault = StoreError("the disk is full")
    admission = RequestAdmission(Store(fault, fault, fault).deliver, dead_letters=tmp_path, retry_after_s=2.0)
    for _ in range(3):
        error = admission.consume_request("metrics", GOOD).exception(0)
        assert isinstance(error, UnavailableError)
        assert (str(error), error.retry_after_s) == (
            "The processor cannot store its state now; send the request again.",
            2.0,
        )
    assert admission.consume_request("metrics", GOOD).result(0) == ExportResult()
    counts = admission.read_counts
    assert (counts.refused, counts.accepted, counts.dead_letters, list(tmp_path.iterdir())) == (9, 3, 0, [])
