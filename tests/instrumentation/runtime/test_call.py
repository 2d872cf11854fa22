from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon.instrumentation.runtime.call import read_file_stamp, read_model_path, read_provider_names


@pytest.mark.parametrize(
    ("providers", "names"),
    [
        (None, ()),
        (["A", "B"], ("A", "B")),
        (("A",), ("A",)),
        ([("A", {"device_id": 1}), "B"], ("A", "B")),
        ([()], ("()",)),
        ("A", ()),
        (3, ()),
        ([3], ("3",)),
    ],
)
def test_the_names_in_an_argument(providers: Any, names: tuple[str, ...]) -> None:
    assert read_provider_names(providers) == names


def test_paths_are_text_or_paths_and_bytes_are_a_model(tmp_path: Path) -> None:
    given = ["a.onnx", tmp_path, b"model", None, 3]
    assert [read_model_path(each) for each in given] == ["a.onnx", str(tmp_path), "", "", ""]


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert read_file_stamp(str(path)) is None
    path.write_bytes(b"12345")
    os.utime(path, ns=(7, 7))
    assert read_file_stamp(str(path)) == (5, 7)
    assert [read_file_stamp(""), read_file_stamp("\0")] == [None, None]
