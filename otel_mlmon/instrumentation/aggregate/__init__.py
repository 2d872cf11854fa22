"""instrumentation/aggregate."""
