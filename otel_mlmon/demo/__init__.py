"""A classifier of handwritten digits, its traffic, and a fault on purpose: what `otel-mlmon demo` shows.

In: the files beside this one: the model `digits.onnx`, and the images it was not trained on, `digits.npz`.
Out: telemetry of a served model (`service`), and a judgement of what the processor made of it
(`story.Verdict`).
"""
