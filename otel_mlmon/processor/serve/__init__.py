"""Serves results: the read-only web port (JSON, Prometheus, health) and the OTLP exporter.

In: functions that return the present results. Out: HTTP answers and OTLP. Nothing here changes the processor's state.
"""
