"""OTLP, in and out: what the Collector or an SDK sends, checked and in our own types; and results sent on.

In: OTLP requests over gRPC and HTTP. Out: `DataPoint`, delivered in batches, each with an acknowledgement.
`exporter` is the other direction: values and events of the processor become OTLP again, under a scope that
`decode` refuses, so that no loop can form.
"""
