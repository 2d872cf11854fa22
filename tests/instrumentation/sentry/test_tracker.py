"""Set-up orders and rates, spans, and links, each against an endpoint that speaks Sentry's protocol over HTTP."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import sentry_sdk
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

import otel_mlmon
from otel_mlmon import ModelOptions
from otel_mlmon.instrumentation.sentry.tracker import MAX_JOINED_CALLS
from otel_mlmon.testing import capture
from tests.support import models
from tests.support.forked import run_forked
from tests.support.processes import environment, run_python
from tests.support.sentry_endpoint import Endpoint, endpoint, initialise, no_sentry

FEED = {"input": np.array([[9, 0, 0, 0]], np.float32)}
BAD = {"input": np.zeros((3,), np.float32)}
OP = "ml.predict"


@pytest.fixture(autouse=True)
def _sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    with no_sentry():
        yield


@pytest.fixture
def sentry() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


@pytest.fixture
def session() -> Any:
    return ort.InferenceSession(models.softmax(name="iris"))


IRIS = {"ml.model.name": "iris", "ml.model.version": models.digest_version(models.softmax(name="iris"))}


def options() -> Any:
    return sentry_sdk.get_client().options


def predicted(event: Any) -> list[Any]:
    """The inference spans of a transaction."""
    return [span for span in event["spans"] if span["op"] == OP]


def always(_: Any) -> float:
    return 1.0


def never(_: Any) -> float:
    return 0.0


# What the application says, and then: the resulting rate, and the spans and the transactions of ours that are sent, by
# a prediction in a transaction and one outside, with sentry_traces_sample_rate=1.0.
RATES: list[tuple[dict[str, Any], float | None, int, int]] = [
    ({}, 1.0, 1, 1),
    ({"traces_sample_rate": None}, 1.0, 1, 1),
    ({"traces_sample_rate": 0}, 1.0, 1, 1),
    ({"traces_sample_rate": 0.0}, 1.0, 1, 1),
    ({"traces_sample_rate": 1.0}, 1.0, 1, 1),
    ({"traces_sampler": always}, None, 1, 1),
    ({"traces_sampler": never}, None, 0, 0),
    ({"traces_sampler": always, "traces_sample_rate": 0.0}, 0.0, 1, 1),
]
ORDERS = ["before", "after", "twice"]


def _set_up(order: str, to: Endpoint, said: dict[str, Any], session: Any) -> None:
    if order in {"after", "twice"}:
        initialise(to, **said)
        session.run(None, FEED)  # the first prediction looks at the client
        sentry_sdk.flush()


@pytest.mark.parametrize(
    ("order", "spans"),
    [
        ("init, session, instrument", [1, 1]),
        ("init, instrument, session", [1, 1]),
        ("session, init, instrument", [1, 1]),
        ("session, instrument, init", [None, 1]),
        ("instrument, session, init", [None, 1]),
        ("instrument, init, session", [1, 1]),
        ("instrument, init, session, init", [None, 1]),
        ("init, instrument, session, init", [None, 1]),
        ("instrument, init, session, init, session", [1, 1]),
    ],
)
def test_the_table_of_what_the_first_two_transactions_are(
    order: str, spans: list[int | None], sentry: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Spans of inferences in each; None if the transaction is not sent, as it began at a rate of None."""
    caplog.set_level(logging.INFO, "otel_mlmon")
    with ExitStack() as stack:
        for step in order.split(", "):
            if step == "init":
                initialise(sentry)
            elif step == "session":
                session = ort.InferenceSession(models.softmax(name="iris"))
            else:
                # The thread behind comes by when the first record does, and then not for a minute.
                captured = stack.enter_context(capture(sentry_traces_sample_rate=1.0, flush_interval_s=60.0))
        for name in ("first", "second"):
            with sentry_sdk.start_transaction(name=name):
                session.run(None, FEED)
            assert options()["traces_sample_rate"] == 1.0
        captured.flush()
        sentry_sdk.flush()
    found = {event["transaction"]: len(predicted(event)) for event in sentry.wait("transaction")}
    assert [found.get(name) for name in ("first", "second")] == spans
    raised = [record for record in caplog.records if "raised Sentry's" in record.getMessage()]
    assert len(raised) == order.count("init")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("said", "rate", "children", "own"),
    RATES,
    ids=["left out", "None", "0", "0.0", "1.0", "sampler 1", "sampler 0", "sampler and 0.0"],
)
@pytest.mark.parametrize("lifecycle", ["static", "stream"])
def test_the_table_of_set_up_orders_and_rates(
    order: str,
    said: dict[str, Any],
    rate: float | None,
    children: int,
    own: int,
    lifecycle: str,
    sentry: Endpoint,
    session: Any,
) -> None:
    if lifecycle == "stream":
        if "trace_lifecycle" not in sentry_sdk.consts.DEFAULT_OPTIONS:
            pytest.skip("this sentry-sdk has no streamed spans: pip install -U sentry-sdk")
        said = {**said, "trace_lifecycle": lifecycle}
    if order == "before":
        initialise(sentry, **said)
    elif order == "twice":
        initialise(sentry)
    with capture(sentry_traces_sample_rate=1.0) as captured:
        _set_up(order, sentry, said, session)
        captured.flush()
        sentry_sdk.flush()
        assert (options()["traces_sample_rate"], captured.handle.status().sentry_mode) == (rate, "native")
        since_s = time.time()
        with _root(lifecycle):
            session.run(None, FEED)
            sentry_sdk.capture_message("inside")
        session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
        (event,) = sentry.wait("event")
        if lifecycle == "static":
            inside = [event for event in sentry.of("transaction") if event["transaction"] == "request"]
            outside = [event for event in sentry.of("transaction") if event["contexts"]["trace"]["op"] == OP]
            outside = [event for event in outside if _moment(event) > since_s]
            spans = [span for event in inside for span in predicted(event)]
        else:
            made = [span for span in sentry.of("span") if span["attributes"]["sentry.op"]["value"] == OP]
            made = [span for span in made if span["start_timestamp"] > since_s]
            spans = [span for span in made if not span["is_segment"]]
            outside = [span for span in made if span["is_segment"]]
        assert (len(spans), len(outside)) == (children, own)
        assert {span["trace_id"] for span in spans} <= {event["contexts"]["trace"]["trace_id"]}
    assert options()["traces_sample_rate"] == said.get("traces_sample_rate")


def _moment(event: Any) -> float:
    """When it began; Python 3.10 does not read the Z."""
    return datetime.fromisoformat(event["start_timestamp"].replace("Z", "+00:00")).timestamp()


def _root(lifecycle: str) -> Any:
    if lifecycle == "stream":
        return sentry_sdk.traces.start_span("request", attributes={"sentry.op": "test"})
    return sentry_sdk.start_transaction(name="request", op="test")


NEVER = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, otel_mlmon
from tests.support import models
handle = otel_mlmon.instrument(**eval(sys.argv[2]))
session = ort.InferenceSession(models.softmax())
session.run(None, {"input": np.zeros((1, 4), np.float32)})
print(handle.status().sentry_mode)
if "sentry_sdk" in sys.modules:
    import sentry_sdk
    print(sentry_sdk.is_initialized(), sentry_sdk.get_client().options.get("traces_sample_rate"))
    handle.uninstrument()
    print(sentry_sdk.is_initialized())
"""


LATE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, otel_mlmon
from tests.support import models
feed = {"input": np.zeros((1, 4), np.float32)}
handle = otel_mlmon.instrument()
first = ort.InferenceSession(models.softmax())
first.run(None, feed)
print("sentry_sdk" in sys.modules, handle.status().sentry_mode)
import sentry_sdk
sentry_sdk.init(sys.argv[2])
second = ort.InferenceSession(models.softmax())
print(handle.status().sentry_mode, sentry_sdk.get_client().options["traces_sample_rate"])
with sentry_sdk.start_transaction(name="request", op="test", sampled=True):
    first.run(None, feed)
handle.shutdown()
sentry_sdk.flush()
"""


def test_sentry_may_be_imported_after_the_first_inference(sentry: Endpoint, pytestconfig: Any) -> None:
    environ: Any = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    done = run_forked(LATE, [str(pytestconfig.rootpath), sentry.dsn], environ=environment(**environ))
    assert (done.stdout.splitlines(), done.stderr) == (["False waiting", "native 0.1"], "")
    (request,) = [event for event in sentry.of("transaction") if event["transaction"] == "request"]
    assert [span["op"] for span in request["spans"]] == [OP]


@pytest.mark.parametrize(
    ("how", "arguments", "lines", "own"),
    [
        ("argument", {"sentry_traces_sample_rate": 1.0}, ["native", "True 1.0", "False"], 1),
        ("environment", {"sentry_traces_sample_rate": 1.0}, ["native", "True 1.0", "False"], 1),
        ("environment", {}, ["native", "True 0.1", "False"], None),
        ("environment", {"sentry_traces_sample_rate": None}, ["native", "True None", "False"], 0),
        ("environment", {"sentry": "off"}, ["off"], 0),
        ("nothing", {}, ["waiting"], 0),
    ],
)
def test_an_application_that_never_initialises(
    how: str, arguments: dict[str, Any], lines: list[str], own: int | None, sentry: Endpoint, pytestconfig: Any
) -> None:
    environ: Any = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    if how == "environment":
        environ["SENTRY_DSN"] = sentry.dsn
    elif how == "argument":
        arguments = {**arguments, "sentry_dsn": sentry.dsn}
    done = run_forked(NEVER, [str(pytestconfig.rootpath), repr(arguments)], environ=environment(**environ))
    assert (done.stdout.splitlines(), done.stderr) == (lines, "")
    if own is not None:
        assert len(sentry.of("transaction")) == own


def test_a_rate_in_between_is_not_touched_and_the_default_is_a_tenth(sentry: Endpoint) -> None:
    initialise(sentry, traces_sample_rate=0.25)
    with capture():
        assert options()["traces_sample_rate"] == 0.25
        initialise(sentry, traces_sample_rate=None)
        ort.InferenceSession(models.softmax()).run(None, FEED)
    with capture():
        assert options()["traces_sample_rate"] == 0.1
    assert options()["traces_sample_rate"] is None


@pytest.mark.parametrize(
    "hands_off", [{"sentry": "off"}, {"sentry_traces_sample_rate": 0.0}, {"sentry_traces_sample_rate": None}]
)
@pytest.mark.parametrize("rate", [None, 0.0])
def test_hands_off(hands_off: dict[str, Any], rate: float | None, sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=rate)
    with capture(**hands_off) as captured:
        with sentry_sdk.start_transaction(name="request"):
            session.run(None, FEED)
        session.run(None, FEED)
        captured.flush()
        assert options()["traces_sample_rate"] is rate
        sentry_sdk.flush()
    assert sentry.of("transaction") == []


@pytest.mark.filterwarnings("ignore:The `enable_tracing` parameter is deprecated:DeprecationWarning")
def test_tracing_switched_off_in_so_many_words_stays_off(sentry: Endpoint) -> None:
    initialise(sentry, enable_tracing=False)
    with capture():
        assert options()["traces_sample_rate"] is None


def test_one_line_says_the_new_rate(sentry: Endpoint, session: Any, caplog: pytest.LogCaptureFixture) -> None:
    initialise(sentry, traces_sample_rate=0.0)
    caplog.set_level(logging.INFO, "otel_mlmon")
    with capture() as captured:
        session.run(None, FEED)
        captured.flush()
        captured.flush()
    assert [record.getMessage() for record in caplog.records if "Sentry" in record.getMessage()] == [
        "otel_mlmon raised Sentry's traces_sample_rate from 0.0 to 0.1, so that inference performance is seen there; "
        "services called from here follow its sampling decisions (sentry_decides_downstream=False keeps these here); "
        "instrument(sentry_traces_sample_rate=0) leaves it alone."
    ]


def test_a_rate_that_the_application_set_meanwhile_is_not_put_back(sentry: Endpoint) -> None:
    initialise(sentry, traces_sample_rate=0.0)
    with capture():
        options()["traces_sample_rate"] = 0.7
    assert options()["traces_sample_rate"] == 0.7


def test_golden_child_span(sentry: Endpoint) -> None:
    session = ort.InferenceSession(models.softmax(name="iris", metadata={"names": '["a", "b", "c", "d"]'}))
    initialise(sentry, traces_sample_rate=1.0)
    with capture(models={"iris": ModelOptions(version="7")}, flush_interval_s=60.0) as captured:
        session.run(None, FEED)
        captured.flush()  # the model's file is read: the end of the transaction waits for nothing
        with sentry_sdk.start_transaction(name="request"), sentry_sdk.start_span(name="inner") as inner:
            session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
    (event,) = sentry.wait("transaction", where=lambda event: event["transaction"] == "request")
    (span,) = predicted(event)
    duration = span["data"].pop("ml.inference.duration")
    confidence = span["data"].pop("ml.prediction.confidence")
    assert 0 < duration < 1
    assert confidence == pytest.approx(1 / (1 + 3 * np.exp(-9)))
    started, ended = (span.pop(key) for key in ("start_timestamp", "timestamp"))
    assert event["start_timestamp"] <= started <= ended <= event["timestamp"]
    span_id = span.pop("span_id")
    assert len(span_id) == 16
    assert span == {
        "trace_id": inner.trace_id,
        "parent_span_id": inner.span_id,
        "same_process_as_parent": True,
        "op": "ml.predict",
        "description": "predict iris",
        "origin": "auto.ml.otel_mlmon",
        "status": "ok",
        "data": {
            "ml.model.name": "iris",
            "ml.model.version": "7",
            "ml.batch.size": 1,
            "ml.prediction.label": "a",
            "ml.runtime.name": "onnxruntime",
            "ml.runtime.version": ort.__version__,
            "ml.execution_provider": "CPUExecutionProvider",
            "ml.operation.name": "run",
        },
    }


def test_a_failing_call_is_an_internal_error_inside_and_outside(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    with capture() as captured:
        with sentry_sdk.start_transaction(name="request"), pytest.raises(Exception, match="Invalid rank"):
            session.run(None, BAD)
        with pytest.raises(Exception, match="Invalid rank"):
            session.run(None, BAD)
        captured.flush()
        sentry_sdk.flush()
    request, own = sentry.wait("transaction", 2)
    (span,) = predicted(request)
    assert (span["status"], span["data"]["error.type"]) == ("internal_error", "InvalidArgument")
    assert own["contexts"]["trace"]["status"] == "internal_error"
    assert own["transaction"] == "predict iris"
    assert own["tags"] == IRIS


def test_an_error_out_of_an_observed_block_carries_its_model(sentry: Endpoint) -> None:
    initialise(sentry)
    with capture(models={"churn": ModelOptions(version="2")}):
        for version in ("3", ""):
            try:
                with otel_mlmon.observe("churn", version=version):
                    raise ValueError("no prediction")
            except ValueError as error:
                sentry_sdk.capture_exception(error)
        sentry_sdk.flush()
    events = sentry.wait("event", 2)
    assert [event["tags"] for event in events] == [
        {"ml.model.name": "churn", "ml.model.version": version} for version in ("3", "2")
    ]


def test_errors_carry_the_model_and_no_input_of_ours(sentry: Endpoint, session: Any) -> None:
    initialise(sentry)
    with capture():
        try:
            try:
                session.run(None, BAD)
            except Exception as error:
                raise RuntimeError("no prediction") from error
        except RuntimeError as error:
            sentry_sdk.capture_exception(error)
        try:
            raise ValueError("something else")
        except ValueError as error:
            sentry_sdk.capture_exception(error)
        sentry_sdk.flush()
    failed, other = sentry.wait("event", 2)
    assert failed["tags"] == IRIS
    frames = [frame for value in failed["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    ours = [frame for frame in frames if frame["module"].startswith("otel_mlmon.")]
    assert ours
    assert not any("vars" in frame for frame in ours)
    assert "tags" not in other


def test_threads_and_pools_of_a_transaction(sentry: Endpoint, session: Any) -> None:
    """A pool's thread that kept the scope of a transaction long over is outside it."""
    initialise(sentry, traces_sample_rate=1.0)
    with capture() as captured, ThreadPoolExecutor(1) as pool:
        with sentry_sdk.start_transaction(name="request"):
            scope = sentry_sdk.get_current_scope()

            def inside() -> None:
                with sentry_sdk.scope.use_scope(scope.fork()):
                    session.run(None, FEED)

            thread = threading.Thread(target=inside)
            thread.start()
            thread.join()
            kept = scope.fork()

        def late() -> None:
            with sentry_sdk.scope.use_scope(kept):
                session.run(None, FEED)

        pool.submit(late).result()
        captured.flush()
        sentry_sdk.flush()
    request, own = sentry.wait("transaction", 2)
    assert len(predicted(request)) == 1
    assert own["contexts"]["trace"]["op"] == OP


def test_own_transactions_know_nothing_of_the_request_that_started_the_thread(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    with capture(flush_interval_s=60.0) as captured:
        session.run(None, FEED)
        captured.flush()
        # The thread behind sleeps now: what follows is made on this thread, in these scopes.
        sentry_sdk.set_user({"id": "someone"})
        sentry_sdk.set_tag("tenant", "someone")
        session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
    for own in sentry.wait("transaction", 2):
        assert "user" not in own
        assert "tenant" not in own["tags"]


def test_at_most_so_many_transactions_a_second(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    with capture(spans_per_second=3.0) as captured:
        for _ in range(200):
            session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
    assert 3 <= len(sentry.wait("transaction", 3)) <= 12


def test_a_transaction_has_no_more_than_a_thousand_of_our_spans(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    with capture(flush_interval_s=60.0) as captured:
        session.run(None, FEED)
        captured.flush()
        # The thread behind sleeps now: the end of the transaction waits for no read of its, at most half a second,
        # which a busy machine may need for so many spans. 1,024 calls are read there.
        with sentry_sdk.start_transaction(name="request"):
            for _ in range(1500):
                session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
    (event,) = sentry.wait("transaction", where=lambda event: event["transaction"] == "request")
    assert len(predicted(event)) == 1000


# What the application traces, and then: which of OpenTelemetry's span (o), Sentry's span (s), the error of the failing
# call (d) and the message after a good one (a) share a trace id. The message is no error of a call: it is left alone.
LINKS = [
    ("nothing", 1.0, "osda"),
    ("nothing", 0.0, "oda"),
    ("opentelemetry", 1.0, "osd"),
    ("opentelemetry", 0.0, "od"),
    ("sentry", 1.0, "osda"),
    ("sentry", 0.0, "oda"),
    ("sentry in opentelemetry", 1.0, "sda"),
    ("sentry in opentelemetry", 0.0, "da"),
    ("opentelemetry in sentry", 1.0, "sda"),
    ("opentelemetry in sentry", 0.0, "da"),
    ("continued", 1.0, "osda"),
    ("continued", 0.0, "oda"),
]


@pytest.mark.parametrize(("around", "rate", "linked"), LINKS)
def test_the_linking_table(around: str, rate: float, linked: str, sentry: Endpoint, session: Any) -> None:
    # A rate too small to sample anything, or one that samples everything.
    initialise(sentry, traces_sample_rate=rate or 1e-12)
    with capture() as captured:
        tracer = captured.tracer_provider.get_tracer("host")
        with _within(around, tracer):
            for feed in (BAD, FEED):
                try:
                    session.run(None, feed)
                    sentry_sdk.capture_message("after")
                except ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
                    sentry_sdk.capture_exception(error)
        captured.flush()
        sentry_sdk.flush()
    events = sentry.wait("event", 2)
    during = {event["contexts"]["trace"]["trace_id"] for event in events if "exception" in event}
    after = {event["contexts"]["trace"]["trace_id"] for event in events if "exception" not in event}
    ours = [span for span in captured.spans if span.name == "predict iris"]
    otel = {f"{span.context.trace_id:032x}" for span in ours if span.context}
    native = [event["contexts"]["trace"] for event in sentry.of("transaction")]
    native += [span for event in sentry.of("transaction") for span in event["spans"]]
    spans = {span["trace_id"] for span in native if span["op"] == OP}
    found = {"o": otel, "s": spans, "d": during, "a": after}
    assert {name for name in found if found[name]} == set("osda" if rate else "oda")
    assert len({frozenset(found[name]) for name in linked}) == 1, found
    if " in " in around:
        # Two traces of the application's own: joined by a link of OpenTelemetry's and a context of Sentry's.
        assert {f"{link.context.trace_id:032x}" for span in ours for link in span.links} == during
        noted = {"exception" in event: event["contexts"].get("otel") for event in events}
        assert {noted[True]["trace_id"]} == otel
        assert noted[False] is None


def _within(around: str, tracer: Any) -> Any:
    stack = ExitStack()
    if around == "continued":  # as docs/sentry.md says
        ids = stack.enter_context(tracer.start_as_current_span("request")).get_span_context()
        header = {"sentry-trace": f"{ids.trace_id:032x}-{ids.span_id:016x}"}
        stack.enter_context(sentry_sdk.start_transaction(sentry_sdk.continue_trace(header, name="request")))
    names = around.split(" in ")
    for name in reversed(names):
        if name == "sentry":
            stack.enter_context(sentry_sdk.start_transaction(name="request"))
        elif name == "opentelemetry":
            stack.enter_context(tracer.start_as_current_span("host"))
    return stack


def test_a_process_without_requests_is_not_one_trace(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    with capture() as captured:
        for _ in range(MAX_JOINED_CALLS + 20):
            session.run(None, FEED)
        with pytest.raises(Exception, match="Invalid rank"):
            session.run(None, BAD)
        captured.flush()
    known = sentry_sdk.get_isolation_scope().get_active_propagation_context().trace_id
    joined = [span for span in captured.spans if span.context and f"{span.context.trace_id:032x}" == known]
    assert len(joined) == MAX_JOINED_CALLS + 1
    assert joined[-1].attributes
    assert joined[-1].attributes["error.type"] == "InvalidArgument"


def test_traces_that_take_turns_are_not_endless_either(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    scopes = [sentry_sdk.Scope(ty=sentry_sdk.scope.ScopeType.ISOLATION) for _ in range(2)]
    with capture() as captured:
        for _ in range(MAX_JOINED_CALLS + 20):
            for scope in scopes:
                with sentry_sdk.scope.use_isolation_scope(scope):
                    session.run(None, FEED)
        captured.flush()
    known = [scope.get_active_propagation_context().trace_id for scope in scopes]
    found = [f"{span.context.trace_id:032x}" for span in captured.spans if span.context]
    assert [found.count(trace_id) for trace_id in known] == [MAX_JOINED_CALLS, MAX_JOINED_CALLS]


def test_the_sampler_of_the_host_is_asked_before_a_call_joins_a_trace(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    others: Any = {
        "meter_provider": MeterProvider(shutdown_on_exit=False),
        "logger_provider": LoggerProvider(shutdown_on_exit=False),
    }
    handle = otel_mlmon.instrument(tracer_provider=tracers, **others)
    with sentry_sdk.start_transaction(name="request"):
        session.run(None, FEED)
    assert handle.shutdown(10.0)
    assert exporter.get_finished_spans() == ()
    assert len(predicted(sentry.wait("transaction")[0])) == 1


FIRST = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, sentry_sdk, otel_mlmon
from tests.support import models
sentry_sdk.init(traces_sample_rate=1.0)
otel_mlmon.instrument()
with sentry_sdk.start_transaction(name="request"):
    ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
"""


def test_the_first_request_is_not_lost_while_exporters_are_made(sentry: Endpoint, pytestconfig: Any) -> None:
    environ: Any = {"SENTRY_DSN": sentry.dsn, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    run_python(["-c", FIRST, str(pytestconfig.rootpath)], cwd=pytestconfig.rootpath, **environ)
    (event,) = sentry.wait("transaction", where=lambda event: event["transaction"] == "request")
    assert len(predicted(event)) == 1


def test_nothing_of_an_input_is_sent(sentry: Endpoint) -> None:
    initialise(sentry, traces_sample_rate=1.0, include_local_variables=False, include_source_context=False)
    session = ort.InferenceSession(models.regression())
    with capture() as captured:
        with sentry_sdk.start_transaction(name="request"):
            session.run(None, {"input": np.array([[41111111, 0]], np.float32)})
        try:
            session.run(None, {"input": np.array([41111111], np.float32)})
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            sentry_sdk.capture_exception(error)
        captured.flush()
        sentry_sdk.flush()
    sentry.wait("transaction", 2)
    sentry.wait("event")
    said = repr(sentry.received)
    assert "41111111" not in said


def test_streamed_spans_have_the_time_and_the_attributes_of_the_call(sentry: Endpoint, session: Any) -> None:
    if "trace_lifecycle" not in sentry_sdk.consts.DEFAULT_OPTIONS:
        pytest.skip("this sentry-sdk has no streamed spans: pip install -U sentry-sdk")
    initialise(sentry, traces_sample_rate=1.0, trace_lifecycle="stream")
    with capture() as captured:
        with sentry_sdk.traces.start_span("request"):
            session.run(None, FEED)
            with pytest.raises(Exception, match="Invalid rank"):
                session.run(None, BAD)
        captured.flush()
        sentry_sdk.flush()
    (request,) = sentry.wait("span", where=lambda span: span["name"] == "request")
    good, bad = sorted(
        sentry.wait("span", 2, where=lambda span: span["name"] == "predict iris"),
        key=lambda span: span["start_timestamp"],
    )
    assert (good["status"], bad["status"]) == ("ok", "error")
    assert {good["parent_span_id"], bad["parent_span_id"]} == {request["span_id"]}
    assert request["start_timestamp"] <= good["start_timestamp"] <= good["end_timestamp"] <= bad["start_timestamp"]
    duration_s = good["attributes"]["ml.inference.duration"]["value"]
    assert good["end_timestamp"] - good["start_timestamp"] == pytest.approx(duration_s, abs=2e-6)
    assert good["attributes"]["ml.prediction.label"]["value"] == "0"


def test_a_warning_where_sentry_is_asked_for_and_not_installed(monkeypatch: Any, caplog: Any) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "sentry_sdk" else find(name, *more)
    )
    with capture(sentry="native") as captured:
        assert captured.handle.status().sentry_mode == "waiting"
    with capture(sentry="auto"):
        pass
    assert [record.getMessage() for record in caplog.records if "sentry" in record.getMessage()] == [
        "sentry-sdk is not installed: pip install 'otel-mlmon[sentry]'."
    ]


FORKS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, sentry_sdk, otel_mlmon
from tests.support import models
sentry_sdk.init(traces_sample_rate=1.0)
handle = otel_mlmon.instrument()
def serve(name):
    session = ort.InferenceSession(models.softmax())
    with sentry_sdk.start_transaction(name=name):
        for _ in range(3):
            session.run(None, {"input": np.zeros((1, 4), np.float32)})
    handle.flush(10)
    sentry_sdk.flush(10)
with sentry_sdk.start_transaction(name="parent"):
    ort.InferenceSession(models.softmax()).run(None, {"input": np.zeros((1, 4), np.float32)})
    child = os.fork()
    if not child:
        serve("child")
        os._exit(0)
os.waitpid(child, 0)
sentry_sdk.flush(10)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork: run the suite on Linux")
def test_a_forked_child_sends_its_own_calls_and_no_others(sentry: Endpoint, pytestconfig: Any) -> None:
    environ: Any = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    environ["SENTRY_DSN"] = sentry.dsn
    done = run_forked(FORKS, [str(pytestconfig.rootpath)], environ=environment(**environ))
    assert (done.returncode, done.stderr) == (0, "")
    found = {event["transaction"]: len(predicted(event)) for event in sentry.wait("transaction", 2)}
    assert found == {"child": 3, "parent": 1}


def test_tasks_of_a_loop_each_have_their_own_transaction(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)

    async def request(name: str, calls: int) -> None:
        with sentry_sdk.isolation_scope(), sentry_sdk.start_transaction(name=name):
            for _ in range(calls):
                await asyncio.to_thread(session.run, None, FEED)
                await asyncio.sleep(0)
                session.run(None, FEED)

    async def serve() -> None:
        await asyncio.gather(*(request(f"r{calls}", calls) for calls in range(1, 6)))

    with capture() as captured:
        asyncio.run(serve())
        captured.flush()
        sentry_sdk.flush()
    found = {event["transaction"]: len(predicted(event)) for event in sentry.wait("transaction", 5)}
    assert found == {f"r{calls}": 2 * calls for calls in range(1, 6)}


def test_a_trace_outside_any_span_has_its_id_before_the_call_returns(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)
    with capture(flush_interval_s=60.0) as captured:
        session.run(None, FEED)
        captured.flush()
        scope = sentry_sdk.get_isolation_scope()
        scope.set_new_propagation_context()
        assert scope._propagation_context is not None
        assert scope._propagation_context._trace_id is None
        session.run(None, FEED)
        assert scope._propagation_context._trace_id is not None


@pytest.mark.parametrize("lifecycle", ["static", "stream"])
def test_a_transaction_carries_the_probability_of_its_call_as_its_sample_rate(lifecycle: str, sentry: Endpoint) -> None:
    if lifecycle == "stream" and "trace_lifecycle" not in sentry_sdk.consts.DEFAULT_OPTIONS:
        pytest.skip("this sentry-sdk has no streamed spans: pip install -U sentry-sdk")
    initialise(sentry, traces_sample_rate=0.5, **({"trace_lifecycle": lifecycle} if lifecycle == "stream" else {}))
    session = ort.InferenceSession(models.softmax(name="iris"))
    with capture(spans_per_second=50.0, flush_interval_s=60.0) as captured:
        for _ in range(2000):
            session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
    rates = {float(header["trace"]["sample_rate"]) for header in sentry.headers if "trace" in header}
    if lifecycle == "static":
        data = [event["contexts"]["trace"]["data"] for event in sentry.wait("transaction", 20)]
        probabilities = {one["ml.sampling.probability"] for one in data}
    else:
        made = sentry.wait("span", 20)
        probabilities = {span["attributes"]["ml.sampling.probability"]["value"] for span in made}
    assert sorted(rates) == pytest.approx(sorted(0.5 * probability for probability in probabilities))
    assert min(probabilities) < 1


@pytest.mark.parametrize("_process", range(4))
def test_a_script_of_twenty_calls_shows_something_at_a_tenth(_process: int, sentry: Endpoint, session: Any) -> None:
    initialise(sentry)
    with capture() as captured:
        for _ in range(20):
            session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
    assert 1 <= len(sentry.wait("transaction")) <= 4


def test_nothing_of_an_input_is_sent_by_default(sentry: Endpoint) -> None:
    initialise(sentry, include_source_context=False)
    session = ort.InferenceSession(models.regression())

    def predict() -> None:
        session.run(None, {"input": np.array([41111111], np.float32)})

    with capture():
        try:
            predict()
        except ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            sentry_sdk.capture_exception(error)
        sentry_sdk.flush()
    (event,) = sentry.wait("event")
    frames = [frame for value in event["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    modules = [frame["module"].partition(".")[0] for frame in frames]
    assert {"otel_mlmon", "onnxruntime"} <= set(modules)
    assert "41111111" not in repr(event)


@pytest.mark.parametrize("where", ["thread", "task", "nested blocks", "inside a block", "before any call"])
def test_only_errors_that_went_through_a_call_are_linked(where: str, sentry: Endpoint, session: Any) -> None:
    initialise(sentry)
    with capture() as captured, captured.tracer_provider.get_tracer("host").start_as_current_span("host") as host:
        ours = f"{host.get_span_context().trace_id:032x}"
        try:
            if where == "thread":
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(session.run, None, BAD).result()
            elif where == "task":
                asyncio.run(asyncio.wait_for(asyncio.to_thread(session.run, None, BAD), 10))
            elif where == "nested blocks":
                with otel_mlmon.observe("outer"), otel_mlmon.observe("inner"):
                    raise ValueError("no prediction")
            elif where == "inside a block":
                with otel_mlmon.observe("outer"):
                    try:
                        raise ValueError("handled")
                    except ValueError as error:
                        sentry_sdk.capture_exception(error)
            else:
                int("three")
        except (ValueError, ort.capi.onnxruntime_pybind11_state.InvalidArgument) as error:
            sentry_sdk.capture_exception(error)
        sentry_sdk.flush()
    (event,) = sentry.wait("event")
    is_ours = where in {"thread", "task", "nested blocks"}
    assert (event["contexts"]["trace"]["trace_id"] == ours) is is_ours
    assert ("tags" in event) is is_ours


def test_a_call_is_counted_once_and_has_one_span_whoever_reads_it(sentry: Endpoint, session: Any) -> None:
    """Read by the worker before the end of its transaction, by the end, or by both ways in one transaction."""
    initialise(sentry, traces_sample_rate=1.0)
    situations = [(before, after) for before in (0, 1, 3) for after in (0, 1, 3) if before + after]
    with capture(flush_interval_s=60.0) as captured:
        session.run(None, FEED)
        captured.flush()
        for before, after in situations:
            with sentry_sdk.start_transaction(name=f"{before} {after}"):
                for _ in range(before):
                    session.run(None, FEED)
                if before:
                    captured.flush()
                for _ in range(after):
                    session.run(None, FEED)
                session.run(None, np_feed(2))
        captured.flush()
        sentry_sdk.flush()
        calls = 1 + sum(before + after + 1 for before, after in situations)
        points: Any = captured.metrics()["ml.inference.duration"].data.data_points
        assert sum(point.count for point in points) == calls
        assert captured.handle.status().recorded_calls == calls
    requests = {event["transaction"]: predicted(event) for event in sentry.wait("transaction", len(situations) + 1)}
    for before, after in situations:
        *single, batch = requests[f"{before} {after}"]
        assert len(single) == before + after
        assert len({span["start_timestamp"] for span in single}) == before + after
        data = [{name: value for name, value in span["data"].items() if name in SAID} for span in single]
        assert data == [{"ml.batch.size": 1, "ml.prediction.label": "0", "ml.prediction.confidence": CONFIDENCE}] * (
            before + after
        )
        assert "ml.prediction.label" not in batch["data"]
        assert batch["data"]["ml.prediction.confidence.min"] == batch["data"]["ml.prediction.confidence"] == CONFIDENCE


SAID = {"ml.batch.size", "ml.prediction.label", "ml.prediction.confidence", "ml.prediction.confidence.min"}
CONFIDENCE = pytest.approx(0.99963, abs=1e-5)


def np_feed(rows: int) -> dict[str, Any]:
    return {"input": np.repeat(FEED["input"], rows, axis=0)}


def test_requests_of_many_threads_lose_no_call_and_have_no_span_twice(sentry: Endpoint, session: Any) -> None:
    initialise(sentry, traces_sample_rate=1.0)

    def serve(number: int) -> None:
        for _ in range(10):
            with sentry_sdk.isolation_scope(), sentry_sdk.start_transaction(name=f"r{number}"):
                for _ in range(number):
                    session.run(None, FEED)

    with capture(flush_interval_s=0.01) as captured:
        threads = [threading.Thread(target=serve, args=(number,)) for number in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        captured.flush()
        sentry_sdk.flush()
        assert captured.handle.status().recorded_calls == 10 * (1 + 2 + 3 + 4 + 5)
    events = sentry.wait("transaction", 50, where=lambda event: event["transaction"].startswith("r"))
    for event in events:
        starts = [span["start_timestamp"] for span in predicted(event)]
        # A thread that is not run for half a second may miss some of its spans.
        assert len(set(starts)) == len(starts) <= int(event["transaction"][1:])
