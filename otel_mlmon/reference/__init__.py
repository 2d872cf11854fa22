"""Reference profiles: what the streams of a model counted when all was well.

In: arrays of training or validation data, or a profile file. Out: `Profile`, one mergeable sketch a stream,
which the window step bins and freezes as the reference of that model.
"""
