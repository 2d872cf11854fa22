"""OpenTelemetry's spans at Sentry's OTLP endpoint, and errors that link to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import sentry_sdk
from opentelemetry import propagate

from otel_mlmon.instrumentation.sentry import otlp as sentry_otlp
from otel_mlmon.testing import capture
from tests.support import models
from tests.support.forked import run_forked
from tests.support.processes import environment
from tests.support.sentry_endpoint import Endpoint, endpoint, initialise, no_sentry

needs_integration = pytest.mark.skipif(
    not sentry_otlp.is_otlp_available(), reason="this sentry-sdk has no OTLP integration: pip install -U sentry-sdk"
)

FEED = {"input": np.zeros((1, 4), np.float32)}
BAD = {"input": np.zeros((3,), np.float32)}


@pytest.fixture(autouse=True)
def _sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    with no_sentry():
        yield


@pytest.fixture
def sentry() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


def test_an_older_sentry_falls_back(sentry: Endpoint, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry_otlp, "is_otlp_available", lambda: False)
    initialise(sentry)
    with capture(sentry="otlp") as captured:
        assert captured.handle.status().sentry_mode == "native"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "sentry='otlp' needs a newer sentry-sdk, with its OTLP integration; sentry='native' is used instead."
    ]


@needs_integration
def test_spans_arrive_and_errors_link_to_them(sentry: Endpoint) -> None:
    initialise(sentry)
    before = propagate.get_global_textmap()
    session = ort.InferenceSession(models.softmax(name="iris"))
    with capture(sentry="otlp") as captured:
        assert captured.handle.status().sentry_mode == "otlp"
        with captured.tracer_provider.get_tracer("host").start_as_current_span("host") as host:
            try:
                session.run(None, BAD)
            except ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
                sentry_sdk.capture_exception(error)
        captured.flush()
        sentry_sdk.flush()
    spans = {span.name: span for span in sentry.wait("otlp", 2)}
    (event,) = sentry.wait("event")
    trace_id = f"{host.get_span_context().trace_id:032x}"
    assert {name: span.trace_id.hex() for name, span in spans.items()} == {"host": trace_id, "predict iris": trace_id}
    assert (event["contexts"]["trace"]["trace_id"], event["tags"]) == (
        trace_id,
        {"ml.model.name": "iris", "ml.model.version": models.digest_version(models.softmax(name="iris"))},
    )
    assert sentry.of("transaction") == []
    assert sentry_sdk.get_client().options["traces_sample_rate"] is None
    assert propagate.get_global_textmap() is before
    assert all("sentry_key=key" in auth and "sentry_version=7" in auth for auth in sentry.otlp_auth)
    assert not sentry_sdk.scope.has_external_propagation_context()


@needs_integration
@pytest.mark.parametrize("rate", [{"traces_sample_rate": 1.0}, {"traces_sample_rate": 0.0}, {"traces_sampler": bool}])
def test_a_client_that_traces_is_refused(rate: dict[str, Any], sentry: Endpoint, caplog: Any) -> None:
    initialise(sentry, **rate)
    with capture(sentry="otlp") as captured:
        assert captured.handle.status().sentry_mode == "native"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == (
        "sentry='otlp' is refused: Sentry's client has a traces_sample_rate or a traces_sampler, with which errors "
        "link to the wrong trace. Leave both out of sentry_sdk.init() to use it; sentry='native' is used instead."
    )


@needs_integration
def test_a_client_that_traces_later_ends_it(sentry: Endpoint, caplog: Any) -> None:
    initialise(sentry)
    session = ort.InferenceSession(models.softmax(name="iris"))
    with capture(sentry="otlp") as captured:
        session.run(None, FEED)
        captured.flush()
        sentry.wait("otlp")
        initialise(sentry, traces_sample_rate=1.0)
        captured.handle._running.pipeline._run_worker_round()  # type: ignore[union-attr] # what the thread behind does every second
        assert captured.handle.status().sentry_mode == "native"
        session.run(None, FEED)
        captured.flush()
        sentry_sdk.flush()
        sentry.wait("transaction")
        assert len(sentry.of("otlp")) == 1


ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnxruntime as ort, otel_mlmon
from opentelemetry import trace
from tests.support import models
handle = otel_mlmon.instrument(sentry="otlp", sentry_traces_sample_rate=float(sys.argv[2]))
session = ort.InferenceSession(models.softmax())
for _ in range(5):
    session.run(None, {"input": np.zeros((1, 4), np.float32)})
handle.flush(10)
print(handle.status().sentry_mode, type(trace.get_tracer_provider()).__name__)
"""


@needs_integration
@pytest.mark.parametrize(("rate", "spans"), [("1.0", 5), ("0.0", 0)])
def test_alone_with_a_dsn(rate: str, spans: int, sentry: Endpoint, pytestconfig: Any) -> None:
    """Our own provider stays private, and its spans are thinned by the rate."""
    environ: Any = {"SENTRY_DSN": sentry.dsn, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    done = run_forked(ALONE, [str(pytestconfig.rootpath), rate], environ=environment(**environ))
    assert (done.returncode, done.stdout.splitlines()) == (0, ["otlp ProxyTracerProvider"])
    assert len(sentry.of("otlp")) == spans
    assert sentry.of("transaction") == []
