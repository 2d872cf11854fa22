"""A worker has OpenTelemetry's spans around its jobs and Sentry for errors and logs. It called a model when it
started; its jobs do not.

An error that has nothing to do with a model, here a text that is no number, must keep the trace Sentry gives it: it
is the trace of the log lines Sentry wrote in the same job, and of the caller whose header was continued. If only
errors are moved to another trace, what Sentry's page of the error shows as "logs of this trace" is empty. The same
program without `instrument()` is the control.
"""

from tests.cases import support

PROGRAM = """
import json, sys
import numpy as np, onnxruntime, sentry_sdk, support
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
sentry_sdk.init(dsn=sys.argv[1], enable_logs=True)
if sys.argv[2] == "with":
    import otel_mlmon
    handle = otel_mlmon.instrument()
session = onnxruntime.InferenceSession(support.identity_model({"probabilities": ("float32", ["N", 3])}))
session.run(None, {"in_probabilities": np.array([[0.7, 0.2, 0.1]], "f4")})
for job in range(5):
    with sentry_sdk.isolation_scope(), trace.get_tracer("worker").start_as_current_span("job"):
        sentry_sdk.continue_trace({"sentry-trace": f"{job + 1:032x}-00000000000000aa"})
        sentry_sdk.logger.warning(f"job {job}")
        try:
            int("three")
        except ValueError as error:
            sentry_sdk.capture_exception(error)
if sys.argv[2] == "with":
    handle.shutdown(3)
sentry_sdk.flush(5)
"""


def measure(how: str) -> tuple[list[str], list[str]]:
    """The trace ids of the errors, and of the log lines."""
    environment = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("METRICS", "LOGS", "TRACES")}
    with support.SentryReceiver() as sentry:
        done = support.run_program(PROGRAM, sentry.dsn, how, environment=environment)
        if done.returncode:
            raise RuntimeError(done.stderr)
        support.wait_until(lambda: len(sentry.of("event")) >= 5, time_limit=3)
        errors = sorted(event["contexts"]["trace"]["trace_id"] for event in sentry.of("event"))
        lines = [line for body in sentry.of("log") for line in body["items"] if line["body"].startswith("job")]
    return errors, sorted(line["trace_id"] for line in lines)


def main() -> None:
    checks = support.Checks()
    expected = [f"{job + 1:032x}" for job in range(5)]
    for how in ("without", "with"):
        errors, lines = measure(how)
        came = f"{sum(each in expected for each in errors)} of {len(errors)}"
        checks.that(f"{how} the line: 5 errors in the caller's trace", errors == expected, came)
        came = f"{len(set(errors) & set(lines))} of {len(set(lines))}"
        checks.that(f"{how} the line: errors in the trace of the log lines", errors == lines, came)
    checks.finish()


if __name__ == "__main__":
    main()
