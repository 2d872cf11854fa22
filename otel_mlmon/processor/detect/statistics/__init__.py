"""Familiar drift statistics, one a module, found by name in the registry; a package adds one by an entry point."""
