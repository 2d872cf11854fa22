"""Serves the processor's results on the read-only web port (JSON, Prometheus, health, pages) and sends them over OTLP.

In: functions that return the present results. Out: HTTP answers and OTLP. Nothing here changes the processor's state.
"""
