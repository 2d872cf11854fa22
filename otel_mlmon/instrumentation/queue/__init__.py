"""Step 2: the queue between the host's threads and the worker thread.

In: calls, appended by any thread. Out: the same calls in batches, on one daemon thread. Bounded by count and by bytes;
what does not fit is dropped and counted.
"""
