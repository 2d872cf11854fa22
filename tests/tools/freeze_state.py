"""Writes a store of the present format, for the tests that later releases still read it.

`python -m tests.tools.freeze_state` writes `tests/support/state/format-N.sqlite3`, N being the format; it refuses to
replace one, since a format that was released does not change.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from otel_mlmon.processor.state.repository import FORMAT_VERSION
from otel_mlmon.processor.state.sqlite import FILE_NAME, backup_database
from otel_mlmon.testing import SimulatedProcessor

FIXTURES: Final = Path(__file__).parent.parent / "support" / "state"
PANES: Final = 90


def freeze(target: Path) -> None:
    """Runs a processor through learning, a drift and its alert, two versions and late data, and copies its store."""
    shares, drifted = {"a": 300, "b": 200}, {"a": 100, "b": 400}
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 2000}}}}) as processor:
        for pane in range(PANES):
            labels = shares if pane < PANES // 2 else drifted
            processor.send_counts(
                "shop", version="2", labels=labels, confidences=[0.9, 0.4], durations_s=[0.01] * 9,
                failed_durations_s=[0.5], features={"age": [20.0, 30.0 + pane], "city": {"Bern": 5, "Rome": 3}},
                missing={"age": 1},
            )  # fmt: skip
            if pane < 3:
                processor.send_counts("shop", version="1", labels=shares, sender="sender-2")
            processor.advance(10)
        processor.now_ns -= 60 * 10**9
        processor.send_counts("shop", version="2", labels=shares, sender="late")
        processor.now_ns += 60 * 10**9
        processor.advance()
        processor.send_counts("shop", version="2", labels=shares)
        processor.advance()
        if not processor.alerts:
            raise RuntimeError("no alert was raised: the store would not hold one")
        backup_database(Path(processor._directory.name) / "data" / FILE_NAME, target)


def main() -> int:
    """Freezes the present format."""
    target = FIXTURES / f"format-{FORMAT_VERSION}.sqlite3"
    if target.exists():
        print(f"{target} exists, and a format that was released does not change", file=sys.stderr)
        return 2
    FIXTURES.mkdir(parents=True, exist_ok=True)
    freeze(target)
    print(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
