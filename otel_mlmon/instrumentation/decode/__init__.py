"""Step 2: what the copied bytes mean.

In: `Call`s of one session, in batches. Out: `Predictions`: durations, labels, confidences, values and features as
columns. Raw inputs and outputs end here.
"""
