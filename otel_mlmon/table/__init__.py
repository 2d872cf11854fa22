"""Tables of rows in files, CSV or Parquet, as columns: what a reference is built of and a backtest judges.

In: a file. Out: `Table`. There is one list of the texts for a missing value, in `cells`.
"""
