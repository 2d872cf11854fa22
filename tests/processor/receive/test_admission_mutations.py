"""Damaged requests in every encoding, few of them: `make soak` sends a million each."""

from __future__ import annotations

import pytest

from benchmarks.soak import mutations


def test_damaged_requests_are_malformed_or_counted_and_never_a_fault_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mutations(count=1500, seed=7) == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"mutations of {name}" for name in ("protobuf", "json", "gzip", "deflate", "zstd")
    ]
    assert all("malformed" in line for line in lines)
