"""Receives OTLP requests over gRPC and HTTP, checks them, and hands on their content as data points.

In: OTLP requests of a Collector or an SDK. Out: `PointGroup`, `ModelLoaded` and `ProviderFallback`, delivered request
by request; a request is answered when its items are stored.
"""
