"""The processor half: runs beside the OpenTelemetry Collector, from received telemetry to alerts."""
