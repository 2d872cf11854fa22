from __future__ import annotations

import os
from pathlib import Path

from otel_mlmon.processor.receive.dead_letters import DeadLetterDirectory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def keep(letters: DeadLetterDirectory, name: str, size_bytes: int, age: int) -> None:
    path = letters.write(bytes(size_bytes), name=name)
    assert path is not None
    if path.exists():
        os.utime(path, ns=(age, age))


def test_a_letter_is_the_body_and_its_owners_alone(tmp_path: Path) -> None:
    path = DeadLetterDirectory(tmp_path / "letters").write(b"body", name="metrics-1")
    assert path is not None
    assert (path.name, path.read_bytes(), path.stat().st_mode & 0o777) == ("metrics-1.pb", b"body", 0o600)
    assert names(path.parent) == ["metrics-1.pb"]


def test_the_oldest_make_room_by_number(tmp_path: Path) -> None:
    letters = DeadLetterDirectory(tmp_path, max_files=2)
    for age, name in enumerate("abc"):
        keep(letters, name, 1, age)
    assert names(tmp_path) == ["b.pb", "c.pb"]


def test_the_oldest_make_room_by_size(tmp_path: Path) -> None:
    letters = DeadLetterDirectory(tmp_path, max_bytes=10)
    for age, name in enumerate("abc"):
        keep(letters, name, 4, age)
    assert names(tmp_path) == ["b.pb", "c.pb"]
    assert letters.write(bytes(11), name="huge") is None
    assert names(tmp_path) == ["b.pb", "c.pb"]
