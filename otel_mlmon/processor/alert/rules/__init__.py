"""The alert rules, one a file, found by name in the registry of `rule.py`."""
