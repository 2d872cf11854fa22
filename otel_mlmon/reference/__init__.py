"""Reference profiles: the distributions of a model's streams while it works as intended.

In: training or validation data and a model, or a running processor, or a profile file. Out: `Profile`, one mergeable
sketch a stream, which the window step bins and freezes as the reference of that model.
"""
