"""The half of otel_mlmon that runs beside the OpenTelemetry Collector: from received telemetry to alerts on drift."""
