"""Backtests: would the processor have raised an alarm on data that exists already, when, and about which streams?

In: a reference (a table or a profile) and data (a table, or OTLP as the Collector's file exporter writes it). Rows are
cut into windows and counted over the bins of the reference; from there on the processor's own steps run: its evidence,
its alarm line, its alerts. Out: `BacktestReport`, one entry a stream, which `page` and `terminal` show.
"""
