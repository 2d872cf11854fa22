"""processor/window."""
