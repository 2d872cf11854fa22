"""Parts for otel_mlmon that are no part of it."""
