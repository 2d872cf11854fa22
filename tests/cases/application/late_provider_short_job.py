"""The README's order, `instrument()` first, and only then does the application set its own providers, and the job is
short.

Frameworks set up telemetry when they start to serve, after the imports. The calls are then over within a fraction of
a second and the job ends. Everything measured must arrive: latency of all 30 calls, and the application's own spans
beside ours. For metrics, traces, and both; a job that ends at once, and one that runs two seconds as the control.
"""

from tests.cases import support

CALLS = 30
PROGRAM = """
import sys, time
import numpy as np, onnxruntime, otel_mlmon, support
handle = otel_mlmon.instrument()
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
session = onnxruntime.InferenceSession(support.identity_model({"p": ("float32", ["N", 3])}))
if "metrics" in sys.argv[1]:
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
if "traces" in sys.argv[1]:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
with trace.get_tracer("job").start_as_current_span("job"):
    for _ in range(30):
        session.run(None, {"in_p": np.array([[0.7, 0.2, 0.1]], "f4")})
time.sleep(float(sys.argv[2]))
"""


def main() -> None:
    checks = support.Checks()
    for providers in ("metrics", "traces", "metrics and traces"):
        for seconds in (0, 2):
            with support.OtlpSink() as sink:
                done = support.run_program(PROGRAM, providers, seconds, environment=sink.environment)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                calls, labels = sink.calls(), sum(sink.labels().values())
                ours = [span.name for span in sink.spans if span.name != "job"]
            name = f"own provider of {providers}, {seconds} s more"
            checks.that(
                f"{name}: {CALLS} calls and predictions arrive", (calls, labels) == (CALLS, CALLS), (calls, labels)
            )
            if "traces" in providers:
                checks.that(f"{name}: {CALLS} spans in the job's trace", len(ours) == CALLS, len(ours))
    checks.finish()


if __name__ == "__main__":
    main()
