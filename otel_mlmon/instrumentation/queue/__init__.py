"""Step 2: the queue of inference calls between the application's threads and the worker thread.

In: calls, appended by any thread. Out: the same calls in batches, on one daemon thread. Bounded by count and by bytes;
what does not fit is dropped and counted.
"""
