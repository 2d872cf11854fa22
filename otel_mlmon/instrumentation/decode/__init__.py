"""Step 3: decodes the copied inputs and outputs of inference calls into predictions and features.

In: `Call`s of one session, in batches. Out: `Predictions`: durations, labels, confidences, values and features as
columns. Raw inputs and outputs end here.
"""
