"""OpenTelemetry monitoring for machine-learning models."""
