"""processor/notify."""
