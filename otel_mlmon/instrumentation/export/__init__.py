"""Step 5: exports the predictions as OpenTelemetry metrics, spans and events.

In: `MetricSnapshot`s for the metrics, `Predictions` for spans and events. Out: what the providers of the host export,
or our own where it has set none; an error tracker, behind the Protocol `ErrorTracker`, gets the calls too.
"""
