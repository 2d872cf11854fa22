"""The configuration of the processor: one YAML file, every key with a default, unknown keys refused.

In: the text of a file and an environment. Out: a frozen `Config`, or a `ConfigurationError` that lists every fault as
`file:line: key.path: what is wrong`. Every step brings its own sections, and so does every rule and notifier; `model`
joins them, `load` reads a file, `render` writes the commented defaults.
"""
