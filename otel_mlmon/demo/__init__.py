"""The parts of `otel-mlmon demo`: a classifier of handwritten digits, its traffic, and a deliberate drift.

In: the files beside this one: the model `digits.onnx`, and images it was not trained on, `digits.npz`.
Out: telemetry of the served model (`service`), and a check of the processor's alerts (`story.DemoOutcome`).

Source of the images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, doi 10.24432/C50P49, CC BY 4.0, as scikit-learn's `load_digits` has them; packed, unchanged.
"""
