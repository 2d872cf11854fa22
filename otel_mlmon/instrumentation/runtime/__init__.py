"""Step 1: captures inference calls; the only code of otel_mlmon that runs on the application's own threads.

In: calls of the host to a runtime, such as onnxruntime, or to `otel_mlmon.observe()`. Out: one `Call` each, numbers and
copied bytes, field by field in a flat queue. Nothing of the host's is kept by reference, nothing is changed, nothing
waits.
"""
