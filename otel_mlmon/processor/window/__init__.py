"""Windows: panes of event time, rolling windows and references, with the state that survives a restart.

In: `DataPoint`, one data point. Out: `Window`, what one stream counted in one closed pane, beside its
rolling window and its reference.
"""
