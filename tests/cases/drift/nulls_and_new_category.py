"""Two faults of data pipelines that every check of data quality knows: missing values, and a category never seen.

A column that had no missing value in 10,000 rows has three percent of them; a column of four categories gets a fifth
one, in three percent of the rows. Neither is chance: even one such row says that something new happens upstream. By a
tolerance of five percent of all values both are forgiven for ever. Each must be told within 5,000 rows, by default.
The same columns unchanged must stay quiet. Three runs each, fixed seeds; all must hold.
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.cases import support

REFERENCE, BEFORE, AFTER = 10_000, 5_000, 5_000


def table(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    income = np.round(random.normal(50, 12, rows), 3).astype("U9")
    return {"income": income, "site": random.choice(["north", "south", "east", "west"], rows, p=[0.4, 0.3, 0.2, 0.1])}


def run(seed: int, fault: str, directory: Path) -> dict[str, tuple[str, int | None]]:
    """The status and first window with an alarm of each column."""
    random = np.random.default_rng(seed)
    reference = support.write_csv(directory / "reference.csv", table(random, REFERENCE))
    columns = table(random, BEFORE + AFTER)
    is_hit = (np.arange(BEFORE + AFTER) >= BEFORE) & (random.random(BEFORE + AFTER) < 0.03)
    if fault == "income":
        columns["income"][is_hit] = ""
    elif fault == "site":
        columns["site"] = np.where(is_hit, "centre", columns["site"])
    data = support.write_csv(directory / "data.csv", columns)
    _, report, words = support.backtest(reference, data)
    if report is None:
        raise RuntimeError(words)
    return {each["stream"]: (each["state"], each["first_alarm_window"]) for each in report["streams"]}


def main() -> None:
    checks = support.Checks()
    words = {"income": "3 % missing", "site": "3 % in a new category"}
    with tempfile.TemporaryDirectory() as directory:
        for seed in (1, 2, 3):
            for column, what in words.items():
                came = run(seed, column, Path(directory))
                window = came[column][1]
                is_right = window is not None and window >= BEFORE // 1000
                checks.that(f"run {seed}: {what}: told within {AFTER} rows", is_right, came)
            came = run(seed, "none", Path(directory))
            checks.that(f"run {seed}: unchanged: quiet", all(window is None for _, window in came.values()), came)
    checks.finish()


if __name__ == "__main__":
    main()
