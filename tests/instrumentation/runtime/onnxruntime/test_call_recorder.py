"""What a session is described by, besides what it says of itself."""

from __future__ import annotations

import hashlib

import pytest

from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import _DIGEST_BYTES, _digest

CONTENT = bytes(range(256)) * 4096 * 3
"""A model of 3 MiB."""


def changed(position: int) -> bytes:
    """The model with another byte at one place."""
    return CONTENT[:position] + bytes([CONTENT[position] ^ 1]) + CONTENT[position + 1 :]


@pytest.mark.parametrize("position", [0, _DIGEST_BYTES - 1, len(CONTENT) - _DIGEST_BYTES, len(CONTENT) - 1])
def test_models_that_differ_at_an_end_have_other_digests(position: int) -> None:
    assert _digest(changed(position)) != _digest(CONTENT)


def test_models_of_other_lengths_have_other_digests() -> None:
    zeros = [_digest(bytes(length)) for length in (0, 1, _DIGEST_BYTES, 3 * _DIGEST_BYTES, 3 * _DIGEST_BYTES + 1)]
    assert len(set(zeros)) == 5


@pytest.mark.parametrize("position", [_DIGEST_BYTES, len(CONTENT) - _DIGEST_BYTES - 1])
def test_the_middle_of_a_large_model_is_not_read(position: int) -> None:
    assert _digest(changed(position)) == _digest(CONTENT)


def test_of_a_model_from_a_file_there_is_no_digest_here() -> None:
    assert (_digest(None), _digest("model.onnx")) == ("", "")
    assert _digest(b"abc") == hashlib.sha256(b"abcabc3").hexdigest()
