"""500 calls a second, one in a hundred fails, default options: what is left for the person who looks for the
failures?

Spans and events are limited to ten a second each, and the documentation says that failed calls come first. Five
failures a second fit into ten spans: most of them should have a span with status error, and an event that names the
error. A sample in which failures are as rare as in the traffic shows somebody who searches for them one in ten.

Second: model B is called 10 times a second beside model A with 490. The limit is of the process, but a model that is
called less often is not less important: B should be seen in at least 10 of its 50 calls.

Two runs of each with fixed seeds; right if both runs are.
"""

from tests.cases import support

SECONDS, RATE = 5, 500
PROGRAM = """
import json, sys, time
import numpy as np, onnxruntime, support
from opentelemetry import trace, _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import otel_mlmon

scenario, seed, seconds, rate = sys.argv[1], *map(int, sys.argv[2:])
spans, events = InMemorySpanExporter(), InMemoryLogRecordExporter()
tracers, loggers = TracerProvider(), LoggerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))
loggers.add_log_record_processor(SimpleLogRecordProcessor(events))
trace.set_tracer_provider(tracers)
_logs.set_logger_provider(loggers)
handle = otel_mlmon.instrument()

def session(name):
    open(name + ".onnx", "wb").write(support.identity_model({"probabilities": ("float32", ["N", 4])}))
    return onnxruntime.InferenceSession(name + ".onnx")

often, seldom = session("often"), session("seldom")
random = np.random.default_rng(seed)
rows = support.softmax(6 * random.normal(size=(1000, 1, 4))).astype("f4")
wrong = np.ones((1, 5), "f4")
failures = seldom_calls = 0
began = time.perf_counter()
for call in range(seconds * rate):
    if scenario == "failures" and random.random() < 0.01:
        try:
            often.run(None, {"in_probabilities": wrong})
        except Exception:
            failures += 1
    elif scenario == "two_models" and call % 50 == 7:
        seldom.run(None, {"in_probabilities": rows[call % 1000]})
        seldom_calls += 1
    else:
        often.run(None, {"in_probabilities": rows[call % 1000]})
    time.sleep(max(0, began + (call + 1) / rate - time.perf_counter()))
handle.shutdown(5)
made = spans.get_finished_spans()
records = [each.log_record for each in events.get_finished_logs()]
failed = [each for each in records if "error.type" in (each.attributes or {}) or "exception" in (each.event_name or "")]
print(json.dumps({
    "failures": failures, "seldom_calls": seldom_calls, "spans": len(made),
    "error_spans": sum(span.status.status_code.name == "ERROR" for span in made),
    "error_predictions": sum(each.event_name == "ml.prediction" for each in failed),
    "error_exceptions": sum(each.event_name != "ml.prediction" for each in failed),
    "seldom_spans": sum("seldom" in span.name for span in made)}))
"""


def measure(scenario: str, seed: int) -> dict[str, int]:
    import json

    done = support.run_program(PROGRAM, scenario, seed, SECONDS, RATE)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    checks = support.Checks()
    for seed in (1, 2):
        seen = measure("failures", seed)
        most = seen["failures"] * 0.6
        checks.that(
            f"run {seed}: most of {seen['failures']} failures with an error span",
            seen["error_spans"] >= most,
            seen["error_spans"],
        )
        events = max(seen["error_predictions"], seen["error_exceptions"])
        checks.that(f"run {seed}: most of {seen['failures']} failures with an event", events >= most, events)
    for seed in (1, 2):
        seen = measure("two_models", seed)
        came = f"{seen['seldom_spans']} of {seen['spans']} spans"
        checks.that(
            f"run {seed}: 10 spans or more for model B's {seen['seldom_calls']} calls", seen["seldom_spans"] >= 10, came
        )
    checks.finish()


if __name__ == "__main__":
    main()
