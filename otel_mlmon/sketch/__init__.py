"""Mergeable summaries, numpy only: what both halves count in.

In: values, or the counts of others. Out: counts that add up. Merging is associative, commutative and exact,
so any two processes that saw parts of the traffic merge to what one that saw all of it would hold, bit for
bit.
"""
