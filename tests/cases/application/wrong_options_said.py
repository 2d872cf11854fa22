"""Somebody mistypes an option, or gives one of the wrong type.

Such a fault is either told at `instrument()` by an error that names the option, or ignored, best with a warning. What
must not happen: telemetry is lost, of that model or of all; or an error whose words do not say which option is meant.
Each mistake runs in a process of its own, with 40 calls of the model meant and 40 of another one.
"""

from tests.cases import support

MISTAKES = {
    "labels=None": ("labels", "models={'meant': ModelOptions(labels=None)}"),
    "labels=5": ("labels", "models={'meant': ModelOptions(labels=5)}"),
    "features=None": ("features", "models={'meant': ModelOptions(features=None)}"),
    "features=3": ("features", "models={'meant': ModelOptions(features=3)}"),
    "models=[...]": ("models", "models=[ModelOptions(labels=['a', 'b', 'c'])]"),
    "confidence_floor='0.5' of a model": ("confidence_floor", "models={'meant': ModelOptions(confidence_floor='0.5')}"),
    "confidence_floor='0.5'": ("confidence_floor", "confidence_floor='0.5'"),
    "latency_threshold_s='fast' of a model": (
        "latency_threshold_s",
        "models={'meant': ModelOptions(latency_threshold_s='fast')}",
    ),
    "tracer_provider='x'": ("tracer_provider", "tracer_provider='x'"),
    "meter_provider='x'": ("meter_provider", "meter_provider='x'"),
}
PROGRAM = """
import logging, sys
import numpy as np, onnxruntime, otel_mlmon, support
from otel_mlmon import ModelOptions
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)

def session(name):
    open(name + ".onnx", "wb").write(support.identity_model({"p": ("float32", ["N", 3])}))
    return onnxruntime.InferenceSession(name + ".onnx")

try:
    handle = otel_mlmon.instrument(OPTIONS)
except Exception as error:
    print("REFUSED", type(error).__name__, error)
    raise SystemExit
meant, other = session("meant"), session("other")
for call in range(40):
    for each in (meant, other):
        each.run(None, {"in_p": np.array([[0.7, 0.2, 0.1]], "f4")})
    if call % 20 == 19:
        handle.flush(5)
handle.shutdown(5)
"""


def judge(option: str, written: str) -> tuple[bool, str]:
    with support.OtlpSink() as sink:
        program = PROGRAM.replace("OPTIONS", written)
        done = support.run_program(program, environment={**sink.environment, "OTEL_METRIC_EXPORT_INTERVAL": "1000"})
        refused = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
        if refused:
            return option in refused[0], refused[0][:140]
        warned = option in done.stdout + done.stderr
        calls = (sink.calls("meant"), sink.calls("other"))
        predictions = (sum(sink.labels("meant").values()), sum(sink.labels("other").values()))
        is_whole = calls == (40, 40) and predictions == (40, 40) and sink.spans
        came = f"calls {calls}, predictions {predictions} of (40, 40), {len(sink.spans)} spans, said in a log: {warned}"
        return bool(is_whole), came


def main() -> None:
    checks = support.Checks()
    for name, (option, written) in MISTAKES.items():
        is_right, came = judge(option, written)
        checks.that(f"{name}: refused by name, or nothing lost", is_right, came)
    checks.finish()


if __name__ == "__main__":
    main()
