"""A Parquet file has a column without a single value, as pandas writes what a source stopped to fill.

In CSV such a column is judged (all missing) or left out with words, and the others are judged. In Parquet the column
has the type "null". It must not end the whole backtest: the other column must be judged, here with a shift of two
standard deviations that is an alarm. Empty in both files, in the reference only, and in the data only, where it is
itself news.
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.cases import support


def main() -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        support.skip("pyarrow is not installed")
    checks = support.Checks()
    random = np.random.default_rng(3)
    rows = 10_000

    def write(path: Path, shift: float, is_empty: bool) -> Path:
        amount = pa.array(random.normal(size=rows) + np.where(np.arange(rows) > rows // 2, shift, 0))
        age = pa.nulls(rows) if is_empty else pa.array(random.normal(40, 9, rows))
        parquet.write_table(pa.table({"amount": amount, "age": age}), path)
        return path

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for what, in_reference, in_data in (
            ("in both files", True, True),
            ("in the reference only", True, False),
            ("in the data only", False, True),
        ):
            reference = write(directory / "reference.parquet", 0, in_reference)
            data = write(directory / "data.parquet", 2, in_data)
            status, report, words = support.backtest(reference, data, "--fail-on-alarm")
            said = support.status_of(report, "amount")
            came = f"exit status {status}, amount {said}, {words.strip()[-110:]!r}"
            checks.that(f"empty {what}: the other column is an alarm", status == 1 and said == "alarm", came)
            checks.that(f"empty {what}: the empty column is spoken of", "age" in words, "age" in words)
    checks.finish()


if __name__ == "__main__":
    main()
