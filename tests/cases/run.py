"""Runs the cases, or those whose path contains one of the given words: `python -m tests.cases.run drift top_k`.

Prints a line a case: `right`, `WRONG: …` or `skipped: …`, and `(expected)` behind one that is known to be wrong. Ends
with 1 if any case is not what `known.py` says of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.cases.known import KNOWN_WRONG

CASES: Final = Path(__file__).resolve().parent
ROOT: Final = CASES.parents[1]
TIME_LIMIT_S: Final = 300
SKIPPED: Final = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one case ended."""

    verdict: Literal["right", "WRONG", "skipped"]
    reason: str
    """The last line that it printed, or the fault that stopped it."""

    @property
    def is_about_a_result(self) -> bool:
        """Whether a wrong case compared a result, and did not end in a fault of its own."""
        return "expected" in self.reason


def case_names() -> list[str]:
    """Every case, as `folder/name`."""
    return sorted(f"{path.parent.name}/{path.stem}" for path in CASES.glob("*/*.py") if path.stem != "__init__")


def run_case(name: str) -> Result:
    """Runs one case in a process of its own, for at most `TIME_LIMIT_S` seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.cases.{name.replace('/', '.')}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return Result(verdict="WRONG", reason=f"not done within {TIME_LIMIT_S} s")
    lines = [line for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if process.returncode == 0:
        return Result(verdict="right", reason=last)
    if process.returncode == SKIPPED:
        return Result(verdict="skipped", reason=last)
    if process.returncode == 1 and "expected" in last:
        return Result(verdict="WRONG", reason=last)
    faults = [line for line in errors.splitlines() if line.strip()]
    return Result(verdict="WRONG", reason=faults[-1] if faults else f"exit status {process.returncode}")


def main(words: list[str]) -> int:
    """Runs the cases whose name contains a word, and prints how each ended."""
    counts: Counter[str] = Counter()
    is_as_known = True
    for name in case_names():
        if words and not any(word in name for word in words):
            continue
        begin_s = time.monotonic()
        result = run_case(name)
        counts[result.verdict] += 1
        is_expected = (result.verdict == "WRONG" and result.is_about_a_result) == (name in KNOWN_WRONG)
        is_as_known &= is_expected or result.verdict == "skipped"
        line = "right" if result.verdict == "right" else f"{result.verdict}: {result.reason}"
        note = "" if result.verdict != "WRONG" else " (expected)" if is_expected else " (NOT expected)"
        note = " (was expected to be wrong)" if result.verdict == "right" and name in KNOWN_WRONG else note
        print(f"{name} ({time.monotonic() - begin_s:.0f} s): {line}{note}", flush=True)
    print(f"{counts['right']} right, {counts['WRONG']} wrong, {counts['skipped']} skipped")
    return 0 if is_as_known else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
