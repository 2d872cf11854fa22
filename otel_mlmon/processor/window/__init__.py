"""Collects points into panes of event time, and compares each pane with a reference: windows, and their stored state.

In: `DataPoint`. Out: `Window`, the counts of one stream in one closed pane, beside its rolling window and its
reference.
"""
