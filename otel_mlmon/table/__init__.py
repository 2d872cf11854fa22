"""Tables: rows of data from files, one reader for whoever needs them.

In: CSV or Parquet. Out: `Table`, columns of numbers or of words, and where each row is found. What counts as a missing
value is said once, in `cells`, for arrays too.
"""
