"""A service sends OpenTelemetry's spans to Sentry by Sentry's own `OTLPIntegration`, then adds
`otel_mlmon.instrument()`.

Sentry's tracing is off there on purpose: OpenTelemetry traces, and an error in Sentry carries OpenTelemetry's trace
id. The one line must leave that as it is: the sample rate stays None, each request is in Sentry once, not once by
OTLP and once more as a transaction, and every error keeps the trace id of its request. The same program without the
line is the control.
"""

from tests.cases import support

REQUESTS = 40
PROGRAM = """
import json, sys
import numpy as np, onnxruntime, sentry_sdk, support
from opentelemetry import trace
from sentry_sdk.integrations.otlp import OTLPIntegration
sentry_sdk.init(dsn=sys.argv[1], integrations=[OTLPIntegration()])
if sys.argv[2] == "with":
    import otel_mlmon
    handle = otel_mlmon.instrument()
from fastapi import FastAPI
from starlette.testclient import TestClient
session = onnxruntime.InferenceSession(support.identity_model({"probabilities": ("float32", ["N", 3])}))
application, traces = FastAPI(), []

@application.get("/predict")
def predict():
    with trace.get_tracer("web").start_as_current_span("request") as span:
        traces.append(format(span.get_span_context().trace_id, "032x"))
        session.run(None, {"in_probabilities": np.array([[0.7, 0.2, 0.1]], "f4")})
        raise ValueError("no stock")

client = TestClient(application, raise_server_exceptions=False)
for _ in range(int(sys.argv[3])):
    client.get("/predict")
rate = sentry_sdk.get_client().options.get("traces_sample_rate")
trace.get_tracer_provider().force_flush(5000)
if sys.argv[2] == "with":
    handle.shutdown(3)
sentry_sdk.flush(5)
print(json.dumps({"traces": traces, "rate": rate}))
"""


def measure(checks: support.Checks, how: str) -> None:
    import json

    environment = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("METRICS", "LOGS")}
    with support.SentryReceiver() as sentry:
        done = support.run_program(PROGRAM, sentry.dsn, how, REQUESTS, environment=environment)
        if done.returncode:
            raise RuntimeError(done.stderr)
        said = json.loads(done.stdout.splitlines()[-1])
        support.wait_until(lambda: len(sentry.of("event")) >= REQUESTS, time_limit=3)
        errors = [event["contexts"]["trace"]["trace_id"] for event in sentry.of("event")]
        requests = [span for span in sentry.otlp.spans if span.name == "request"]
    linked = sum(each in said["traces"] for each in errors)
    checks.that(f"{how} the line: traces_sample_rate None", said["rate"] is None, said["rate"])
    checks.that(
        f"{how} the line: {REQUESTS} errors with OpenTelemetry's trace id",
        linked == REQUESTS,
        f"{linked} of {len(errors)}",
    )
    checks.that(f"{how} the line: {REQUESTS} requests by OTLP", len(requests) == REQUESTS, len(requests))
    transactions = len(sentry.of("transaction"))
    checks.that(f"{how} the line: no request as a transaction too", not transactions, f"{transactions} transactions")


def main() -> None:
    try:
        import sentry_sdk.integrations.otlp  # noqa: F401
    except ImportError:
        support.skip("this sentry-sdk has no OTLPIntegration")
    checks = support.Checks()
    for how in ("without", "with"):
        measure(checks, how)
    checks.finish()


if __name__ == "__main__":
    main()
