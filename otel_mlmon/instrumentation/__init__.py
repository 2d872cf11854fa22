"""The part of otel_mlmon that runs inside the application, from its inference calls to OpenTelemetry signals.

In: calls of a model, such as `onnxruntime.InferenceSession.run`. Out: the spans, metrics and events of `semconv`. One
folder is one step (runtime, queue, decode, aggregate, export); only `pipeline.py` joins them.
"""
