"""Step 5: into OpenTelemetry.

In: `Snapshot`s for the metrics, `Predictions` for spans and events. Out: instruments, spans and log records of the
providers that the host has set, or of our own where it has none.
"""
