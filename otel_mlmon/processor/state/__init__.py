"""Keeps the state of the processor: repositories, the records in them, and the one thread that owns it."""
