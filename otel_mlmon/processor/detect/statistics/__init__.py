"""The familiar drift statistics, one a file, found by name in the registry."""
