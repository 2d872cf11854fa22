"""State: what survives a restart, and the one thread that owns it."""
