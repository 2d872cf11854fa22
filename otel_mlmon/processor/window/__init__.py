"""Collects data points into panes of event time, and compares the values of each pane with a stream's reference.

In: `PointGroup`. Out: `StreamWindow`, the counts of one stream in one closed pane, beside its rolling window and its
reference.
"""
