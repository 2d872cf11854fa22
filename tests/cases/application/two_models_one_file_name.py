"""A service loads `churn/model.onnx` and `fraud/model.onnx`, as exporters and model stores name them.

They are two models: one of three classes that is sure, one of five that is not. Their labels, confidence and features
must not be poured into one: mixed, each hides what the other does, and a reference learned of both fits neither. Two
names, or two versions of one name, are both right.
"""

from pathlib import Path

from tests.cases import support

PROGRAM = """
import numpy as np, onnxruntime, otel_mlmon, sys, support
handle = otel_mlmon.instrument()
random = np.random.default_rng(0)
churn = onnxruntime.InferenceSession(sys.argv[1] + "/churn/model.onnx")
fraud = onnxruntime.InferenceSession(sys.argv[1] + "/fraud/model.onnx")
for _ in range(50):
    churn.run(None, {"in_p": support.softmax(9 * random.normal(size=(1, 3))).astype("f4")})
    fraud.run(None, {"in_p": support.softmax(random.normal(size=(1, 5))).astype("f4")})
handle.shutdown(5)
"""


def main() -> None:
    import tempfile

    checks = support.Checks()
    with tempfile.TemporaryDirectory() as directory, support.OtlpSink() as sink:
        for name, classes in (("churn", 3), ("fraud", 5)):
            (Path(directory) / name).mkdir()
            model = support.identity_model({"p": ("float32", ["N", classes])})
            (Path(directory) / name / "model.onnx").write_bytes(model)
        done = support.run_program(PROGRAM, directory, environment=sink.environment)
        if done.returncode:
            raise RuntimeError(done.stderr)
        streams: dict[tuple[str, str], int] = {}
        for said, point in sink.points("ml.inference.duration"):
            key = (said["ml.model.name"], said.get("ml.model.version", ""))
            streams[key] = streams.get(key, 0) + point.count
        checks.that("100 calls measured", sink.calls() == 100, sink.calls())
        named = {said["ml.model.name"] for said, _ in sink.points("ml.predictions")}
        versions = {said.get("ml.model.version", "") for said, _ in sink.points("ml.predictions")}
        checks.that("two models of 50 calls each", sorted(streams.values()) == [50, 50], streams)
        checks.that(
            "predictions of two models", max(len(named), len(versions)) >= 2, f"names {named}, versions {versions}"
        )
    checks.finish()


if __name__ == "__main__":
    main()
