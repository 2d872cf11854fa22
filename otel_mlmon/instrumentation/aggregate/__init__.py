"""Step 4: adds batches up.

In: `Predictions`. Out: one `Snapshot` a model: the sum of an interval, ready for the metrics.
"""
