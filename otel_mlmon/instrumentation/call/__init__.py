"""Step 1: what happens on the host's thread, and nothing else.

In: calls of the host to `Session.run`. Out: one `Call` each, a tuple of numbers and copied bytes, appended to a
queue. Nothing of the host's is kept by reference, nothing is changed, nothing waits.
"""
