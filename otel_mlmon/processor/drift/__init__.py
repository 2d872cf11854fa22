"""processor/drift."""
