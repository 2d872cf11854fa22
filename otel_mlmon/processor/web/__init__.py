"""processor/web."""
