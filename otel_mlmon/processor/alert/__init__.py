"""processor/alert."""
