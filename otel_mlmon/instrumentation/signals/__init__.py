"""instrumentation/signals."""
