"""instrumentation/buffer."""
