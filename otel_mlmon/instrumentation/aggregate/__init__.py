"""Step 4: many batches as one.

In: `Predictions`. Out: one `Snapshot` a model: what an interval added up to, ready for the metrics.
"""
