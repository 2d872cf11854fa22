"""Familiar drift statistics, one a file, found by name in the registry; a package adds one by an entry point."""
