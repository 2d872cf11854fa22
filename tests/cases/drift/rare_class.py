"""Fraud is half a percent of the predictions in the reference of 10,000. Then it is three percent.

That is six times as much work for the people who look at each case. By a tolerance of two percent of all traffic such
a change is forgiven for ever, so that the class for which the model was built is the one that is not watched. It must
be an alarm within 20,000 rows by default; where nothing changes, there must be none. Five runs each, fixed seeds; all
must hold.
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.cases import support

REFERENCE, BEFORE, AFTER = 10_000, 5_000, 20_000


def labels(random: np.random.Generator, rows: int, share: float) -> list[str]:
    return [str(label) for label in np.where(random.random(rows) < share, "fraud", "fine")]


def run(seed: int, share: float, directory: Path) -> tuple[str | None, int | None]:
    """The status, and the first window with an alarm."""
    random = np.random.default_rng(seed)
    reference = support.write_csv(directory / "reference.csv", {"said": labels(random, REFERENCE, 0.005)})
    rows = labels(random, BEFORE, 0.005) + labels(random, AFTER, share)
    data = support.write_csv(directory / "data.csv", {"said": rows})
    _, report, words = support.backtest(reference, data, "--columns", "said:label")
    if report is None:
        raise RuntimeError(words)
    stream = report["streams"][0]
    return stream["state"], stream["first_alarm_window"]


def main() -> None:
    checks = support.Checks()
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(1, 6):
            status, window = run(seed, 0.03, Path(directory))
            is_right = window is not None and window >= BEFORE // 1000
            checks.that(
                f"run {seed}, 0.5 % to 3 %: an alarm after row {BEFORE}", is_right, f"{status}, window {window}"
            )
        for seed in range(1, 6):
            status, window = run(seed, 0.005, Path(directory))
            checks.that(f"run {seed}, as before: no alarm", window is None, f"{status}, window {window}")
    checks.finish()


if __name__ == "__main__":
    main()
