"""A classifier of handwritten digits, its traffic, and a fault on purpose: what `otel-mlmon demo` shows.

In: the files beside this one: the model `digits.onnx`, and the images it was not trained on, `digits.npz`.
Out: telemetry of a served model (`service`), and a judgement of what the processor made of it
(`story.Verdict`).

Source of the images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, doi 10.24432/C50P49, CC BY 4.0, as scikit-learn's `load_digits` has them; packed, unchanged.
"""
