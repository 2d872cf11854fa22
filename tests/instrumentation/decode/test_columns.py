from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.instrumentation.decode.columns import column
from otel_mlmon.instrumentation.runtime.call import Item, Tensor

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
STATIC = Tensor(name="x", layout="rows", dtype="float32", row_shape=(2,))
FREE = Tensor(name="x", layout="rows", dtype="float32")
WHOLE, THINNED = ROWS.tobytes(), ((9, 2), ROWS.tobytes())


@pytest.mark.parametrize(
    ("tensor", "items", "calls", "sizes", "is_mixed"),
    [
        (STATIC, [WHOLE, b"", WHOLE], [0, 0, 0, 2, 2, 2], [3, 0, 3], False),
        (STATIC, [WHOLE, None, THINNED], [0, 0, 0, 2, 2, 2], [3, 0, 9], False),
        (STATIC, [b"\0" * 12, WHOLE, b"", WHOLE], [1, 1, 1, 3, 3, 3], [0, 3, 0, 3], True),
        (FREE, [THINNED, ((0, 2), b""), THINNED], [0, 0, 0, 2, 2, 2], [9, 0, 9], False),
        (FREE, [THINNED, ((1, 3), b"\0" * 12), THINNED], [0, 0, 0, 2, 2, 2], [9, 1, 9], True),
        (FREE, [THINNED, ((5, 2), b""), THINNED], [0, 0, 0, 2, 2, 2], [9, 5, 9], False),
    ],
)
def test_rows_and_the_calls_they_belong_to(
    tensor: Tensor, items: list[Item], calls: list[int], sizes: list[int], is_mixed: bool
) -> None:
    found = column(tensor, items)
    assert np.array_equal(found.rows, np.concatenate([ROWS, ROWS]))
    assert (found.calls.tolist(), found.sizes.tolist(), found.is_mixed) == (calls, sizes, is_mixed)


def test_a_width_that_is_wanted_is_kept_instead_of_the_first() -> None:
    found = column(FREE, [((1, 3), b"\0" * 12), THINNED], width=2)
    assert (found.rows.tolist(), found.calls.tolist(), found.is_mixed) == (ROWS.tolist(), [1, 1, 1], True)


@pytest.mark.parametrize("items", [[None], [b""], [((3, 0), b"")], [((0,), b"")]])
def test_nothing_copied_is_no_rows(items: list[Item]) -> None:
    for tensor in (STATIC, FREE):
        if not (tensor is FREE and items == [b""]):
            assert column(tensor, items).rows.size == 0
