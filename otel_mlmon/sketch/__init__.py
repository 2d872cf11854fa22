"""Mergeable summaries of values, which both halves of the package count in. Needs numpy only.

In: values, or counts of another program. Out: counts that can be merged. Merging is associative, commutative and exact:
the summaries of parts of the traffic, merged in any order, are the summary of all of it, bit for bit.
"""
