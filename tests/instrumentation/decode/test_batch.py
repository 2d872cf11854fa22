from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.decode.batch import (
    PIECE_CALLS,
    PackedTensor,
    join_tensor_rows,
    split_copies_by_call,
    take_call_batches,
)
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.runtime.call import FIELDS, CallTuple, Item, Plan, Side, Tensor, estimate_call_bytes
from tests.support.calls import batch_of, copies, copy_calls, records_of, session

SUPPRESSED = {"suppress": True}
ONE = Tensor(name="x", layout="rows", dtype="uint8", row_shape=(2,))
PLANS = [
    Plan(session=session(name="one"), operation="run", inputs=(ONE,), outputs=(ONE,)),
    Plan(session=session(name="two"), operation="run", inputs=(ONE, ONE), outputs=(ONE,)),
    Plan(session=session(name="none"), operation="run"),
]
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.binary(max_size=6), st.none(), st.just(((9, 2), b"ab")), st.just(((1,), ("a",)))
)


@st.composite
def runs_of_calls(draw: st.DrawFn) -> list[CallTuple]:
    """Runs of calls of a plan, mostly the bytes of one tensor."""
    found: list[CallTuple] = []
    for plan in draw(st.lists(st.sampled_from(PLANS), max_size=4)):
        is_bare = draw(st.booleans())
        for _ in range(draw(st.integers(1, PIECE_CALLS + 2))):
            sides: list[Side] = []
            for tensors in (plan.inputs, plan.outputs):
                items = [b"ab" if is_bare else draw(ITEMS) for _ in tensors]
                sides.append(items[0] if len(items) == 1 and isinstance(items[0], bytes) else tuple(items))
            context = draw(st.sampled_from([None, None, None, None, {"a": 1}, SUPPRESSED]))
            error = None if is_bare else draw(st.sampled_from([None, "ValueError"]))
            at = len(found)
            found.append((plan, at, at + 5, context, sides[0], sides[1], error))
    return found


@settings(deadline=None, max_examples=30)  # each is up to a thousand calls
@given(runs_of_calls(), st.integers(1, 4 * PIECE_CALLS))
def test_every_call_is_in_the_batch_of_its_plan_as_it_came_or_suppressed(calls: list[CallTuple], limit: int) -> None:
    ring = CallQueue(
        fields=FIELDS, max_records=10_000, max_bytes=1 << 30, attend=lambda _: None, weigh=estimate_call_bytes
    )
    for call in calls:
        ring.offer(call, 1)
    pauses: list[None] = []
    batches, suppressed = take_call_batches(
        ring.take_calls, limit, is_suppressed=lambda context: context is SUPPRESSED, pause=lambda: pauses.append(None)
    )
    ends = [min(first + PIECE_CALLS, limit) for first in range(0, limit, PIECE_CALLS)]
    assert len(pauses) == sum(end <= len(calls) for end in ends)
    assert records_of(ring.queue) == calls[limit:]
    taken = [call for call in calls[:limit] if call[3] is not SUPPRESSED]
    assert suppressed == len(calls[:limit]) - len(taken)
    assert [batch.plan for batch in batches] == list(dict.fromkeys(call[0] for call in taken))
    for batch in batches:
        mine = [call for call in taken if call[0] is batch.plan]
        assert batch.started_ns.tolist() == [call[1] for call in mine]
        assert batch.ended_ns.tolist() == [call[2] for call in mine]
        assert list(batch.contexts) == [call[3] for call in mine]
        assert list(batch.errors) == [call[6] for call in mine]
        for columns, sides in ((batch.inputs, [call[4] for call in mine]), (batch.outputs, [call[5] for call in mine])):
            rows = [tuple(row) for row in zip(*map(split_copies_by_call, columns), strict=True)] or [()] * len(mine)
            assert rows == list(map(copies, sides))


def test_what_was_copied_whole_is_joined() -> None:
    rows = np.arange(20, dtype=np.float32).reshape(-1, 2)
    batch = batch_of(copy_calls([({"x": rows[:2]}, {"y": rows[:2]}), ({"x": rows[2:]}, {"y": rows[2:]})]))
    ((given,), (made,)) = batch.inputs, batch.outputs
    assert isinstance(given, PackedTensor)
    assert isinstance(made, PackedTensor)
    assert (given.data, given.lengths.tolist()) == (made.data, made.lengths.tolist()) == (rows.tobytes(), [16, 64])


ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
STATIC = Tensor(name="x", layout="rows", dtype="float32", row_shape=(2,))
FREE = Tensor(name="x", layout="rows", dtype="float32")
WHOLE, THINNED = ROWS.tobytes(), ((9, 2), ROWS.tobytes())


@pytest.mark.parametrize(
    ("tensor", "items", "calls", "sizes", "is_ragged"),
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
    tensor: Tensor, items: list[Item], calls: list[int], sizes: list[int], is_ragged: bool
) -> None:
    joined = join_tensor_rows(tensor, items)
    assert np.array_equal(joined.rows, np.concatenate([ROWS, ROWS]))
    assert (joined.calls.tolist(), joined.sizes.tolist(), joined.is_ragged) == (calls, sizes, is_ragged)


def test_a_width_that_is_wanted_is_kept_instead_of_the_first() -> None:
    joined = join_tensor_rows(FREE, [((1, 3), b"\0" * 12), THINNED], width=2)
    assert (joined.rows.tolist(), joined.calls.tolist(), joined.is_ragged) == (ROWS.tolist(), [1, 1, 1], True)
    narrow = join_tensor_rows(FREE, [THINNED, THINNED], width=1)
    assert (narrow.rows.shape, narrow.calls.tolist(), narrow.is_ragged) == ((0, 1), [], True)


@pytest.mark.parametrize("items", [[None], [b""], [((3, 0), b"")], [((0,), b"")]])
def test_nothing_copied_is_no_rows(items: list[Item]) -> None:
    for tensor in (STATIC, FREE):
        if not (tensor is FREE and items == [b""]):
            assert join_tensor_rows(tensor, items).rows.size == 0
