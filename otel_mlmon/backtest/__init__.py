"""Backtests: what the processor would have said of data that is already there: whether, when and about what.

The rows are cut into windows and counted over the bins of the reference; from there on it is the processor's own
way: its references and bins, its evidence, its alarm line, its alerts.

In: a reference (rows, or a profile) and data (rows, or OTLP as the Collector's file exporter writes it).
Out: `Report`, one entry a column or stream, and the pages that show it.
"""
