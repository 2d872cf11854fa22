"""Step 5: exports metrics, spans and events through OpenTelemetry.

In: `Snapshot`s for the metrics, `Predictions` for spans and events. Out: what the providers of the host export, or our
own where it has set none; an error tracker, behind the Protocol `ErrorTracker`, gets the calls too.
"""
