"""instrumentation/call."""
