"""Step 4: adds up the predictions of batches of inference calls until the next collection of metrics.

In: `Predictions`. Out: one `MetricSnapshot` a model: the sum of an interval, ready for the metrics.
"""
