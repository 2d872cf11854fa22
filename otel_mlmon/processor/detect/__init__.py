"""Detects drift: how sure it is that a stream's distribution has left its reference, and by how much.

The decision is an evidence process on counts that may be looked at after every pane (`evidence.py`); the drift
statistics people know are reported beside it, one a file (`statistics/`). No sample is too small, and none so large
that it alarms about nothing.

In: `StreamWindow`, what one stream counted in one closed pane, beside its rolling window and its reference; and
`DetectionPolicy`, how the stream is judged.
Out: `DriftScore`, the evidence against its alarm line, the onset, each bin's part in it, and the statistics.
"""
