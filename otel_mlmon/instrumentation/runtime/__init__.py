"""Step 1, capture: the only code that runs on the host's thread.

In: calls of the host to a runtime, such as onnxruntime, or to `otel_mlmon.observe()`. Out: one `Call` each, numbers and
copied bytes, field by field in a flat queue. Nothing of the host's is kept by reference, nothing is changed, nothing
waits.
"""
