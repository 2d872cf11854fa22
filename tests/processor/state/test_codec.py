from __future__ import annotations

import pytest

from otel_mlmon.errors import StoreError
from otel_mlmon.processor.state.codec import decode, encode
from tests.support.observations import durations, numbers


@pytest.mark.parametrize("count", [0, 7, 1 << 60])
def test_a_counter_is_itself(count: int) -> None:
    assert decode(encode(count)) == count


@pytest.mark.parametrize("sketch", [durations(0.1, 0.2), numbers(1.0, -2.0)])
def test_what_is_cut_short_is_refused(sketch: object) -> None:
    blob = encode(sketch)  # type: ignore[arg-type]
    for length in range(len(blob)):
        with pytest.raises(StoreError, match="stored sketch"):
            decode(blob[:length])


def test_another_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="unknown kind"):
        decode(b"x123")
