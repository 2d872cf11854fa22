"""Sentry's set-ups with OpenTelemetry: the rate afterwards, the spans, and what is linked, each against an endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import sentry_sdk

from otel_mlmon.instrumentation.sentry import otlp as sentry_otlp
from otel_mlmon.testing import capture
from tests.support.forked import run_forked
from tests.support.processes import environment
from tests.support.sentry_endpoint import Endpoint, endpoint, initialise, no_sentry

pytestmark = pytest.mark.skipif(
    not sentry_otlp.is_otlp_available(), reason="this sentry-sdk has no OTLP integration: pip install -U sentry-sdk"
)


@pytest.fixture(autouse=True)
def _sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    with no_sentry():
        yield


@pytest.fixture
def sentry() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


# Each set-up is a process: what Sentry's integrations install in OpenTelemetry stays for good.
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
root, dsn, integration, rate, order, choice = sys.argv[1:]
sys.path.insert(0, root)
import numpy as np, onnxruntime as ort, sentry_sdk, otel_mlmon
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tests.support import models

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("host")

def initialise():
    options = {} if rate == "left out" else {"traces_sample_rate": float(rate)}
    if integration == "otlp":
        from sentry_sdk.integrations.otlp import OTLPIntegration
        options["integrations"] = [OTLPIntegration(setup_propagator=False)]
    elif integration == "otel":
        from sentry_sdk.integrations.opentelemetry import SentrySpanProcessor
        options["instrumenter"] = "otel"
        trace.get_tracer_provider().add_span_processor(SentrySpanProcessor())
    sentry_sdk.init(dsn=dsn, **options)

session = ort.InferenceSession(models.softmax(name="iris"))
if order == "before":
    initialise()
handle = otel_mlmon.instrument(sentry_traces_sample_rate=1.0, sentry=choice)
if order == "after":
    initialise()
    session.run(None, {"input": np.zeros((1, 4), np.float32)})
    handle.flush(5)
    sentry_sdk.flush(5)

def fail():
    try:
        session.run(None, {"input": np.zeros((3,), np.float32)})
    except Exception as error:
        sentry_sdk.capture_exception(error)

with tracer.start_as_current_span("request") as span:
    request = format(span.get_span_context().trace_id, "032x")
    session.run(None, {"input": np.zeros((1, 4), np.float32)})
    fail()
    try:
        int("three")
    except ValueError as error:
        sentry_sdk.capture_exception(error)
fail()
mode, rate = handle.status().sentry_mode, sentry_sdk.get_client().options["traces_sample_rate"]
handle.shutdown(5)
trace.get_tracer_provider().force_flush(5000)
sentry_sdk.flush(5)
print(json.dumps([mode, rate, request, sentry_sdk.get_client().options["traces_sample_rate"]]))
"""


class Row(NamedTuple):
    """One set-up, and what is expected of it."""

    integration: str
    rate: str
    mode: str
    new_rate: float | None
    by_otlp: int
    """Inferences of the three that Sentry gets over OTLP."""
    natively: int
    """And as its own spans or transactions."""
    error_in_span: bool
    """Whether the failing call's error in OpenTelemetry's span has its trace."""
    error_outside: bool
    """Whether that outside any has the trace of its inference."""


TABLE = [
    Row("none", "left out", "native", 1.0, 0, 3, error_in_span=True, error_outside=True),
    Row("none", "0", "native", 1.0, 0, 3, error_in_span=True, error_outside=True),
    Row("none", "1", "native", 1.0, 0, 3, error_in_span=True, error_outside=True),
    Row("otlp", "left out", "otlp", None, 3, 0, error_in_span=True, error_outside=True),
    Row("otlp", "0", "otlp", 0.0, 3, 0, error_in_span=True, error_outside=True),
    Row("otlp", "1", "otlp", 1.0, 3, 0, error_in_span=True, error_outside=True),
    Row("otel", "left out", "otel", 1.0, 0, 3, error_in_span=True, error_outside=True),
    Row("otel", "0", "otel", 1.0, 0, 3, error_in_span=True, error_outside=True),
    Row("otel", "1", "otel", 1.0, 0, 3, error_in_span=True, error_outside=True),
]


def inferences(sentry: Endpoint) -> list[tuple[str, str]]:
    """Trace and span id of every inference among Sentry's own transactions and spans."""
    events = sentry.of("transaction")
    own = [event["contexts"]["trace"] for event in events if event["transaction"] == "predict iris"]
    spans = [span for event in events for span in event["spans"] if span["description"] == "predict iris"]
    return [(span["trace_id"], span["span_id"]) for span in [*own, *spans]]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("row", TABLE, ids=[f"{row.integration} {row.rate}" for row in TABLE])
def test_the_table_of_set_ups(row: Row, order: str, sentry: Endpoint, pytestconfig: Any) -> None:
    environ: Any = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    arguments = [str(pytestconfig.rootpath), sentry.dsn, row.integration, row.rate, order, "auto"]
    done = run_forked(PROGRAM, arguments, environ=environment(**environ))
    assert done.returncode == 0, done.stderr
    mode, rate, request, restored = json.loads(done.stdout)
    assert (mode, rate) == (row.mode, row.new_rate)
    assert restored == (None if row.rate == "left out" else float(row.rate))
    warm = order == "after"  # one more call, which looks at the client
    by_otlp = [(span.trace_id.hex(), span.span_id.hex()) for span in sentry.of("otlp") if span.name == "predict iris"]
    natively = inferences(sentry)
    assert (len(by_otlp), len(natively)) == (
        row.by_otlp + (warm and row.by_otlp > 0), row.natively + (warm and row.natively > 0),
    )  # fmt: skip
    assert len(set(by_otlp + natively)) == len(by_otlp + natively)
    inside, elsewhere, outside = (event["contexts"]["trace"]["trace_id"] for event in sentry.wait("event", 3))
    traces = [trace_id for trace_id, _ in by_otlp + natively]
    assert traces.count(request) == 2
    assert (inside == request) is row.error_in_span
    assert (outside in traces and outside != request) is row.error_outside
    # An error of no call of ours has the trace that it has without us.
    assert (elsewhere == request) is (row.integration != "none")


def test_a_choice_that_the_set_up_makes_impossible_is_refused(sentry: Endpoint, caplog: Any) -> None:
    initialise(sentry, instrumenter="otel")
    with capture(sentry="native") as captured:
        assert captured.handle.status().sentry_mode == "otel"
    assert [record.getMessage() for record in caplog.records if "sentry=" in record.getMessage()][-1:] == [
        "sentry='native' is refused: Sentry makes its spans of OpenTelemetry's, by instrumenter='otel', and inferences "
        "are among them already."
    ]


def test_another_client_has_its_own_mode(sentry: Endpoint) -> None:
    initialise(sentry, instrumenter="otel")
    with capture() as captured:
        modes = [captured.handle.status().sentry_mode]
        for options in ({}, {"instrumenter": "otel"}):
            initialise(sentry, **options)
            captured.handle._running.pipeline._run_worker_round()  # type: ignore[union-attr]
            modes.append(captured.handle.status().sentry_mode)
        assert modes == ["otel", "native", "otel"]
        assert sentry_sdk.get_client().options["traces_sample_rate"] == 0.1
    assert sentry_sdk.get_client().options["traces_sample_rate"] is None
