"""Step 1: what happens on the host's thread, and nothing else.

In: calls of the host to `Session.run` and its kin. Out: one `Call` each, numbers and copied bytes, field by field in a
flat queue. Nothing of the host's is kept by reference, nothing is changed, nothing waits.
"""
