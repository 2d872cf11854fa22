"""instrumentation/record."""
