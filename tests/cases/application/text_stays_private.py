"""A service sends text through a model: an e-mail address, a sentence with a card number, a customer's number.

The documentation says that raw inputs never leave the process. Text of people must not leave by default, as a label,
a category, an attribute of a span or of an event, however often the same text was seen: a user who comes 500 times is
still a person. The case looks for the texts in every byte that was sent.
"""

from pathlib import Path

from tests.cases import support

PROGRAM = """
import numpy as np, onnxruntime, otel_mlmon, sys
handle = otel_mlmon.instrument()
session = onnxruntime.InferenceSession(sys.argv[1])
for call in range(600):
    who = call % 3
    text = np.array([[f"user{who}@example.test", f"please call flat {who} of 12 Example Street"]], object)
    note = np.array([[f"card 0000-000{who}"]], object)
    session.run(None, {"in_reply": text, "in_note": note})
    if call % 100 == 99:
        handle.flush(5)
handle.shutdown(5)
"""
PRIVATE = (b"@example.test", b"Example Street", b"card 0000")


def main() -> None:
    import tempfile

    checks = support.Checks()
    model = support.identity_model({"reply": ("object", ["N", 2]), "note": ("object", ["N", 1])})
    with tempfile.TemporaryDirectory() as directory, support.OtlpSink("http") as sink:
        path = Path(directory) / "assistant.onnx"
        path.write_bytes(model)
        done = support.run_program(PROGRAM, path, environment=sink.environment)
        if done.returncode:
            raise RuntimeError(done.stderr)
        checks.that("600 calls measured", sink.calls() == 600, sink.calls())
        for text in PRIVATE:
            found = sink.bytes.count(text)
            checks.that(f"'{text.decode()}' in nothing that was sent", not found, f"{found} times")
    checks.finish()


if __name__ == "__main__":
    main()
