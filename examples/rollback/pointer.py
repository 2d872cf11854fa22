"""The pointer: a JSON file that names the version in service, the one before it, and what was rolled back.

`python pointer.py models/current.json 2` puts version 2 into service.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Pointer = dict[str, Any]


def read(path: Path) -> Pointer:
    """Reads the pointer; one that is not there is empty."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write(path: Path, pointer: Pointer) -> None:
    """Replaces the pointer at once: whoever reads it reads the old one or the new one, and never half of it."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(pointer, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lets one process at a time change the pointer."""
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def deploy(path: Path, version: str) -> None:
    """Puts a version into service."""
    with lock(path):
        pointer = read(path)
        if pointer.get("version") != version:
            pointer = {
                **pointer, "version": version, "previous": pointer.get("version"), "deployed_s": time.time()
            }  # fmt: skip
            write(path, pointer)


if __name__ == "__main__":
    deploy(Path(sys.argv[1]), sys.argv[2])
    print(f"Version {sys.argv[2]} is in service.")
