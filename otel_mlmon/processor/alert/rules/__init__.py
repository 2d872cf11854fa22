"""The alert rules, one a module, found by name in the registry of `rule.py`."""
