"""A job in CI checks the last thousand rows with `otel-mlmon backtest --fail-on-alarm`, since that is the default
window.

The rows are shifted by three standard deviations and one of three categories holds them all; anybody sees it in a
histogram. Whatever the number of rows, the command must not say `ok` of such a column and end with 0: an alarm (exit
status 1) is right, and so is any answer that is not a success, where it says that this is too little to judge. The
first rows may be used to learn how the data vary, but what was used up so was not judged, and that must not look like
a pass.
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.cases import support


def main() -> None:
    checks = support.Checks()
    random = np.random.default_rng(4)
    with tempfile.TemporaryDirectory() as directory:
        columns = {"amount": np.round(random.normal(size=10_000), 4), "region": random.choice(list("abc"), 10_000)}
        reference = support.write_csv(Path(directory) / "reference.csv", columns)
        for rows in (300, 1_000, 1_010, 1_040, 2_000):
            shifted = {"amount": np.round(random.normal(size=rows) + 3, 4), "region": np.full(rows, "a")}
            data = support.write_csv(Path(directory) / "data.csv", shifted)
            status, report, _ = support.backtest(reference, data, "--fail-on-alarm")
            said = {name: support.status_of(report, name) for name in columns}
            is_right = status != 0 and "ok" not in said.values()
            checks.that(
                f"{rows} rows shifted by 3 sd: not ok, exit status not 0", is_right, f"{said}, exit status {status}"
            )
    checks.finish()


if __name__ == "__main__":
    main()
