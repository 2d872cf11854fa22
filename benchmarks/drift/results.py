"""Results that were computed already, so that a run that was interrupted goes on where it ended.

A row depends on its parameters, which are its key; a change of the code is not seen, so `--fresh` computes anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(os.environ.get("MLMON_BENCH", Path.home() / ".cache" / "otel-mlmon-bench")) / "drift.jsonl"


def recall(key: tuple[Any, ...], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the stored result of `key`, or computes and stores it."""
    name = json.dumps(key)
    for line in FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else ():
        entry = json.loads(line)
        if entry["key"] == name:
            stored: dict[str, Any] = entry["result"]
            return stored
    result = compute()
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with FILE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": name, "result": result}) + "\n")
    return result


def forget() -> None:
    """Removes all results."""
    FILE.unlink(missing_ok=True)
