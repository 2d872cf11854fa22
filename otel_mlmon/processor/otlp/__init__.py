"""processor/otlp."""
