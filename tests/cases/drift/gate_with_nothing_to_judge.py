"""A job in CI ends with `otel-mlmon backtest --fail-on-alarm`, and the data it checks are broken.

A column of the reference is missing, or the file has no rows: nothing, or not all, could be judged. Another delimiter
than before may be read for what it is, and is then judged like the control, or else must not pass. A gate that lets
this through is worse than none: it is green from the day the export breaks. The exit status must not be 0, and the
words must say what is missing. The same data unbroken are the control, with status 0.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.cases import support


def table(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {"amount": np.round(random.normal(5, 1, rows), 4), "region": random.choice(list("abc"), rows)}


def judged(report: dict[str, Any] | None) -> set[str]:
    """The columns that were judged, and are quiet."""
    return {one["stream"] for one in (report or {}).get("streams", []) if one.get("state") == "ok"}


def main() -> None:
    checks = support.Checks()
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        reference = support.write_csv(directory / "reference.csv", table(random, 6_000))
        good = support.write_csv(directory / "good.csv", table(random, 6_000))
        broken = {
            "a column is missing": support.write_csv(
                directory / "narrow.csv", {"amount": table(random, 6_000)["amount"]}
            ),
            "another delimiter (|)": directory / "pipes.csv",
            "no rows": directory / "empty.csv",
        }
        (directory / "pipes.csv").write_text(good.read_text().replace(",", "|"))
        (directory / "empty.csv").write_text("amount,region\n")
        status, _, _ = support.backtest(reference, good, "--fail-on-alarm")
        checks.that("control: exit status 0", status == 0, status)
        for what, file in broken.items():
            status, out, words = support.backtest(reference, file, "--fail-on-alarm")
            is_read = what.startswith("another") and judged(out) == {"amount", "region"}
            checks.that(f"{what}: exit status not 0", status != 0 or is_read, f"{status}: {words.strip()[-90:]!r}")
    checks.finish()


if __name__ == "__main__":
    main()
